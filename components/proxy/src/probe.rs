//! The application's `tcpSocket` probes, which the kubelet asks of the proxy.
//!
//! Through the redirect such a probe would reach the proxy, which accepts whatever the application does. So inject writes
//! it as an HTTP probe of `/probe/tcp/PORT/SECONDS` on the admin listener, and that is answered by opening a connection to
//! the port, at the address where the request came in: what listens on loopback only was never seen by the kubelet either.
//!
//! Anybody who reaches the admin listener may ask. So nothing but the very probes that inject configured is looked at: the
//! rest is not found, open or not, and the answer tells no more than the port itself would.

use std::{collections::BTreeSet, fmt, io, net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use conduit_net::Net;
use conduit_runtime::admin::{Own, text};
use futures::future::{FutureExt, ready};
use http::StatusCode;
use tokio::time::timeout;

/// What the path of every probe begins with.
pub const PREFIX: &str = "/probe/tcp/";

/// Of the kubelet's patience, what is kept for the way there and back.
const MARGIN: Duration = Duration::from_millis(200);

/// A port that may be asked for, and how long the kubelet waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TcpProbe {
    /// The application's port.
    pub port: u16,
    /// The probe's `timeoutSeconds`, of which Kubernetes knows none below 1.
    pub timeout_s: u32,
}

impl TcpProbe {
    /// Where it is asked for.
    pub fn path(self) -> String {
        format!("{PREFIX}{self}")
    }

    /// The probe that a path asks for.
    pub fn of_path(path: &str) -> Option<Self> {
        path.strip_prefix(PREFIX)?.parse().ok()
    }

    /// How long a connection may take to open, for the answer to arrive in time.
    fn deadline(self) -> Duration {
        Duration::from_secs(self.timeout_s.into()).saturating_sub(MARGIN)
    }

    async fn look(self, net: Net, addr: SocketAddr) -> Result<(), String> {
        let Self { port, .. } = self;
        let deadline = self.deadline();
        match timeout(deadline, net.connect(addr)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Err(format!("nothing listens on port {port}"))
            }
            Ok(Err(error)) => Err(format!("port {port} cannot be connected to: {error}")),
            Err(_) => Err(format!("port {port} did not open within {deadline:?}")),
        }
    }
}

/// As in a path, and in a list: `8080/1`.
impl fmt::Display for TcpProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.timeout_s)
    }
}

impl FromStr for TcpProbe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // One spelling for each: neither signs nor leading zeros.
        let parsed = text
            .split_once('/')
            .and_then(|(port, timeout)| {
                Some(Self { port: port.parse().ok()?, timeout_s: timeout.parse().ok()? })
            })
            .filter(|probe| probe.port > 0 && probe.timeout_s > 0 && probe.to_string() == text);
        parsed.ok_or_else(|| {
            "expected ports with seconds, separated by commas, such as 8080/1,5432/3".to_owned()
        })
    }
}

/// Parses a list of probes.
pub(crate) fn list(value: &str) -> Result<BTreeSet<TcpProbe>, String> {
    value.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::parse).collect()
}

/// Answers the paths of probes; only those `allowed` are looked at.
pub(crate) fn answers(allowed: BTreeSet<TcpProbe>, net: Net) -> Own {
    Arc::new(move |path, local| {
        if !path.starts_with(PREFIX) {
            return None;
        }
        let Some(probe) = TcpProbe::of_path(path).filter(|probe| allowed.contains(probe)) else {
            let unknown = "not found; this proxy was told of no such probe (CONDUIT_PROXY_TCP_PROBES)\n";
            return Some(ready(text(StatusCode::NOT_FOUND, unknown)).boxed());
        };
        let (net, addr) = (net.clone(), SocketAddr::new(local.ip(), probe.port));
        let answer = async move {
            match probe.look(net, addr).await {
                Ok(()) => text(StatusCode::OK, "ok\n"),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            }
        };
        Some(answer.boxed())
    })
}

#[cfg(test)]
mod tests {
    use conduit_net::{Io, Listener, LocalAddr, Network, Resolved};
    use futures::future::{BoxFuture, pending};
    use http_body_util::BodyExt;

    use super::*;

    /// A network on which every connection stays half open: a full backlog, or packets dropped.
    struct Stuck;

    impl Network for Stuck {
        fn bind(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
            pending().boxed()
        }

        fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Io>> {
            pending().boxed()
        }

        fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Resolved>> {
            pending().boxed()
        }
    }

    #[test]
    fn probes_are_read_as_they_are_written_and_no_other_way() {
        let probe = TcpProbe { port: 8080, timeout_s: 5 };
        assert_eq!(TcpProbe::of_path(&probe.path()), Some(probe));
        assert_eq!(
            list(" 8080/5, 80/1,").unwrap(),
            BTreeSet::from([TcpProbe { port: 80, timeout_s: 1 }, probe])
        );
        for bad in [
            "", "80", "80/", "/1", "0/1", "80/0", "080/1", "80/+1", "80/1/1", "80/-1", "65536/1", "http/1",
            "80/1?x",
        ] {
            assert!(bad.parse::<TcpProbe>().is_err(), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_does_not_open_is_told_before_the_kubelet_gives_up() {
        for timeout_s in [1, 5] {
            let probe = TcpProbe { port: 8080, timeout_s };
            let answers = answers(BTreeSet::from([probe]), Arc::new(Stuck));
            let local = LocalAddr("10.0.0.2:4191".parse().unwrap());
            let answer = answers(&probe.path(), local).unwrap();
            let patience = Duration::from_secs(timeout_s.into());
            let answer = timeout(patience, answer).await.expect("in time");
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let said = String::from_utf8(body.to_vec()).unwrap();
            assert!(said.starts_with("port 8080 did not open within "), "{said}");
        }
    }
}
