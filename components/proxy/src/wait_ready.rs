//! `conduit-proxy wait-ready`: returns when the proxy in the same pod accepts connections. For the container's postStart
//! hook, which holds the application's containers back until then.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::{bail, ensure};
use conduit_net::{Net, TokioNetwork};
use conduit_proxy::Listen;
use conduit_runtime::env::{self, Env};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

const ASK_EVERY: Duration = Duration::from_millis(50);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);
/// A status line.
const ANSWER_MAX: u64 = 64;

pub(crate) async fn wait(mut env: Env) -> anyhow::Result<ExitCode> {
    let admin = env.parse("CONDUIT_PROXY_METRICS_LISTENER", env::listen).unwrap_or(Listen::default().admin);
    let deadline = env.parse("CONDUIT_PROXY_WAIT_READY_TIMEOUT", env::duration).unwrap_or(DEFAULT_DEADLINE);
    env.finish()?;
    let (net, addr) = (TokioNetwork::shared(), reachable(admin));
    let ready = async {
        while ask(&net, addr).await.is_err() {
            sleep(ASK_EVERY).await;
        }
    };
    match timeout(deadline, ready).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(_) => bail!("the proxy at {addr} is not ready after {deadline:?}"),
    }
}

/// A listener on every address is reached on loopback.
fn reachable(admin: SocketAddr) -> SocketAddr {
    let ip = match admin.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, admin.port())
}

async fn ask(net: &Net, addr: SocketAddr) -> anyhow::Result<()> {
    let answer = timeout(ASK_TIMEOUT, async {
        let mut io = net.connect(addr).await?;
        io.write_all(b"GET /ready HTTP/1.0\r\n\r\n").await?;
        let mut answer = Vec::new();
        io.take(ANSWER_MAX).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    })
    .await??;
    ensure!(answer.starts_with(b"HTTP/1.0 200") || answer.starts_with(b"HTTP/1.1 200"), "not ready");
    Ok(())
}
