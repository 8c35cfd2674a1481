//! A server and its caller in a namespace of their own, and what became of the requests.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::time::Instant;

use crate::{
    cluster::{Cluster, PATIENCE},
    counts::Counts,
    process::until,
};

const MANIFESTS: &str = include_str!("../manifests/load.yml");
/// The port on which the caller tells its counts, which the proxy leaves alone.
const COUNTS: u16 = 8081;
/// The port on which a proxy tells its metrics.
const METRICS: u16 = 4191;

/// The server and its caller.
pub struct Load<'c> {
    cluster: &'c Cluster,
    namespace: String,
}

impl<'c> Load<'c> {
    /// Deploys both into a fresh namespace, the pods in the mesh, and waits until all that they say is TLS.
    pub fn meshed(cluster: &'c Cluster, namespace: &str) -> Self {
        let load = Self { cluster, namespace: namespace.to_owned() };
        cluster.remove_namespace(namespace);
        cluster.make_namespace(namespace);
        // In this order: what is dialled before it answers leaves half-open connections in the kernel for two minutes.
        for part in ["server", "caller"] {
            cluster.apply_to(namespace, &load.manifest_of(part, true));
            cluster.rolled_out(namespace, &[part]);
        }
        load.until_encrypted();
        load
    }

    /// The manifests of both, with proxies or without.
    pub fn manifests(&self, meshed: bool) -> String {
        let plain = MANIFESTS;
        let counts = COUNTS.to_string();
        match meshed {
            true => self.cluster.inject(plain, &["--tls=optional", "--skip-inbound-ports", &counts]),
            false => plain.to_owned(),
        }
    }

    /// The manifests of one of them.
    pub fn manifest_of(&self, part: &str, meshed: bool) -> String {
        let all = self.manifests(meshed);
        let is_it = |document: &&str| document.contains(&format!("\n  name: {part}\n"));
        all.split("---\n").filter(is_it).collect::<Vec<_>>().join("---\n")
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The running pod of the caller.
    fn caller(&self) -> Result<String, String> {
        let pods = self.cluster.pods(&self.namespace, "app=caller");
        let name = pods.last().and_then(|pod| pod["metadata"]["name"].as_str());
        name.map(str::to_owned).ok_or_else(|| "the caller does not run".to_owned())
    }

    /// What became of all requests so far.
    ///
    /// # Errors
    /// The caller does not answer.
    pub fn try_counts(&self) -> Result<Counts, String> {
        let caller = self.caller()?;
        let text = self.cluster.get_from_pod(&self.namespace, &caller, COUNTS, "/counts")?;
        let json: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        Ok(Counts::read(caller, &json))
    }

    /// What became of all requests so far.
    ///
    /// # Panics
    /// The caller does not tell.
    #[track_caller]
    pub fn counts(&self) -> Counts {
        until("the caller tells its counts", PATIENCE, || self.try_counts())
    }

    /// Waits until so many requests more than in `before` have ended, and tells what became of them.
    #[track_caller]
    pub fn after(&self, before: &Counts, requests: u64) -> Counts {
        until(&format!("{requests} more requests"), PATIENCE, || {
            let since = self.try_counts()?.since(before);
            if since.sent() >= requests { Ok(since) } else { Err(format!("{} so far", since.sent())) }
        })
    }

    /// What the caller's proxy has counted of responses to the caller, by the `tls` label.
    ///
    /// # Errors
    /// It does not answer.
    pub fn responses(&self) -> Result<Labels, String> {
        let metrics = self.cluster.get_from_pod(&self.namespace, &self.caller()?, METRICS, "/metrics")?;
        let mut found = Labels::new();
        for line in metrics.lines().filter(|line| line.starts_with("response_total{")) {
            let Some((labels, value)) = line.rsplit_once(' ') else { continue };
            if labels.contains("direction=\"outbound\"") {
                let tls = labels.split("tls=\"").nth(1).and_then(|rest| rest.split('"').next());
                *found.entry(tls.unwrap_or("none").to_owned()).or_default() +=
                    value.parse::<u64>().unwrap_or(0);
            }
        }
        Ok(found)
    }

    /// Waits until a hundred requests in a row were all TLS, and tells since when all are.
    #[track_caller]
    pub fn until_encrypted(&self) -> Instant {
        self.until_only("true")
    }

    /// Waits until a hundred requests in a row all had this `tls` label, and tells since when all have.
    #[track_caller]
    pub fn until_only(&self, label: &str) -> Instant {
        let mut before: Option<(Instant, Labels)> = None;
        until(&format!("only tls={label} from the caller"), PATIENCE, || {
            let (asked, now) = (Instant::now(), self.responses()?);
            let (began, base) = before.get_or_insert_with(|| (asked, now.clone()));
            let since = added(base, &now);
            if since.keys().any(|other| other != label) {
                before = Some((asked, now));
                return Err(format!("{since:?}"));
            }
            let enough = since.get(label).is_some_and(|count| *count >= 100);
            if enough { Ok(*began) } else { Err(format!("{since:?}")) }
        })
    }

    /// Waits until a request had another `tls` label than this one.
    #[track_caller]
    pub fn until_other(&self, label: &str) {
        let before = self.responses().unwrap_or_default();
        until(&format!("anything but tls={label} from the caller"), PATIENCE, || {
            let since = added(&before, &self.responses()?);
            if since.keys().any(|other| other != label) { Ok(()) } else { Err(format!("{since:?}")) }
        });
    }
}

/// Numbers of responses by their `tls` label.
pub type Labels = BTreeMap<String, u64>;

/// What was counted between two readings. Numbers that have fallen are those of another proxy, which began at nothing.
pub fn added(before: &Labels, now: &Labels) -> Labels {
    let is_another = before.iter().any(|(label, count)| now.get(label).unwrap_or(&0) < count);
    let base = |label| if is_another { 0 } else { *before.get(label).unwrap_or(&0) };
    let added = now.iter().map(|(label, count)| (label.clone(), count - base(label)));
    added.filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, u64)]) -> Labels {
        pairs.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect()
    }

    #[test]
    fn what_was_added_is_the_difference_unless_the_proxy_is_another() {
        let before = labels(&[("true", 100), ("no_discovery", 3)]);
        let now = labels(&[("true", 120), ("no_discovery", 3), ("expired", 1)]);
        assert_eq!(added(&before, &now), labels(&[("true", 20), ("expired", 1)]));
        assert_eq!(added(&before, &labels(&[("true", 7)])), labels(&[("true", 7)]));
    }
}
