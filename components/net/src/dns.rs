//! Names to addresses through the system's resolver configuration, without getaddrinfo: that blocks a thread, and in
//! a static binary it needs files that are not there.

use std::{io, net::IpAddr, sync::OnceLock, time::Duration};

use hickory_resolver::{Resolver, net::runtime::TokioRuntimeProvider};

use crate::Resolved;

/// How long an address literal or an answer without a lifetime is kept.
const LITERAL_TTL: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub(crate) struct Dns {
    resolver: OnceLock<Option<Resolver<TokioRuntimeProvider>>>,
}

impl Dns {
    pub(crate) async fn resolve(&self, host: &str) -> io::Result<Resolved> {
        if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Resolved { addrs: vec![ip], ttl: LITERAL_TTL });
        }
        let resolver = self.resolver.get_or_init(system_resolver).as_ref().ok_or_else(|| {
            io::Error::other("no usable resolver configuration: /etc/resolv.conf is missing or unreadable")
        })?;
        let answer = resolver.lookup_ip(host).await.map_err(|error| {
            let kind =
                if error.is_no_records_found() { io::ErrorKind::NotFound } else { io::ErrorKind::Other };
            io::Error::new(kind, error)
        })?;
        #[expect(
            clippy::disallowed_methods,
            reason = "hickory dates its answers by the system's monotonic clock"
        )]
        let now = std::time::Instant::now();
        let ttl = answer.valid_until().saturating_duration_since(now);
        let addrs: Vec<IpAddr> = answer.iter().collect();
        match addrs.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"))),
            false => Ok(Resolved { addrs, ttl }),
        }
    }
}

fn system_resolver() -> Option<Resolver<TokioRuntimeProvider>> {
    Resolver::builder_tokio().ok()?.build().ok()
}
