//! A proxy as an operating system sees it: a process with CPU time and memory.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use conduit_net::Net;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::Instant,
};

/// How long a proxy may take to say it is ready.
const START: Duration = Duration::from_secs(10);
/// Between two questions whether it is.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// A running proxy; dropping it kills the process.
pub(crate) struct Proxy {
    child: Child,
    /// Where it serves `/ready` and `/metrics`.
    pub(crate) admin: SocketAddr,
    /// From the start of the process to its first answer of 200 on `/ready`.
    pub(crate) started_in: Duration,
}

impl Proxy {
    /// Starts `binary` with nothing but `env` in its environment and waits until it is ready.
    pub(crate) async fn start(
        net: &Net,
        binary: &Path,
        env: &[(&str, String)],
        admin: SocketAddr,
    ) -> anyhow::Result<Self> {
        let began = Instant::now();
        let child = Command::new(binary)
            .env_clear()
            .envs(env.iter().map(|(name, value)| (*name, value.as_str())))
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut proxy = Self { child, admin, started_in: Duration::ZERO };
        while !proxy.is_ready(net).await {
            if let Some(status) = proxy.child.try_wait()? {
                bail!("the proxy ended with {status} before it was ready");
            }
            if began.elapsed() > START {
                bail!("the proxy was not ready within {START:?}");
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        proxy.started_in = began.elapsed();
        Ok(proxy)
    }

    async fn is_ready(&self, net: &Net) -> bool {
        matches!(get(net, self.admin, "/ready").await, Ok(answer) if answer.contains(" 200 "))
    }

    /// CPU time used so far, by all threads, in the kernel and outside.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        // proc(5): fields 14 and 15 are utime and stime in ticks; the command before them may hold spaces. schedstat
        // has the same in nanoseconds, per thread.
        let pid = self.pid()?;
        let mut total = 0;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            let nanoseconds: u64 = text.split_whitespace().next().context("schedstat is empty")?.parse()?;
            total += nanoseconds;
        }
        Ok(Duration::from_nanos(total))
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the proxy has ended")
    }
}

/// What `addr` answers to `GET path`, head and all.
pub(crate) async fn get(net: &Net, addr: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut io = net.connect(addr).await?;
    io.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    io.read_to_string(&mut answer).await?;
    Ok(answer)
}
