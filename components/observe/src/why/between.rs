//! The links between two ends.

use std::sync::Arc;

use conduit_k8s::owned::COMPONENT_DESTINATION;

use super::{
    Facts, Seen,
    answer::{Link, State, Step},
};
use crate::inventory::Pod;

/// Whether the proxies that send know whom to expect.
pub(super) fn advertised(from: &[Arc<Pod>], to: Option<&[Arc<Pod>]>, seen: &Seen, facts: &Facts<'_>) -> Link {
    let link = |state, detail: String| Link::new(Step::Advertised, state, detail);
    let broken = |detail, reason| {
        link(State::Broken, detail).because(reason).fixed_by(facts.look_at(COMPONENT_DESTINATION))
    };
    let cut_off = from.iter().find(|pod| reaches_destination(pod, facts) == Some(false));
    let has = |reason: &str| seen.plaintext.contains_key(reason);
    if has("no_identity") {
        let nameless = to.into_iter().flatten().find(|pod| pod.identity.is_none());
        let detail = nameless.map_or_else(
            || "the destination service names no identity for where the requests go".to_owned(),
            |pod| format!("{} proves no identity that could be advertised", pod.name.name),
        );
        return broken(detail, "no_identity");
    }
    if has("no_discovery") || (cut_off.is_some() && seen.encrypted == 0.0) {
        let detail = cut_off.map_or_else(
            || "the destination service has not answered in time, or was behind the cluster".to_owned(),
            |pod| format!("the proxy of {} does not reach the destination service", pod.name.name),
        );
        return broken(detail, "no_discovery");
    }
    if seen.encrypted > 0.0 {
        return link(State::Ok, "the proxies are told whom to expect".to_owned());
    }
    let nameless = to.into_iter().flatten().any(|pod| pod.identity.is_none());
    match from.iter().any(|pod| reaches_destination(pod, facts) == Some(true)) && !nameless {
        true => {
            link(State::Ok, "the destination service is reached, and every pod has an identity".to_owned())
        }
        false => link(State::Unknown, "nobody has asked the destination service yet".to_owned()),
    }
}

fn reaches_destination(pod: &Pod, facts: &Facts<'_>) -> Option<bool> {
    facts.proxies.get(&pod.name)?.says.as_ref()?.destination_up
}

/// Whether TLS was done: what the proxies counted.
pub(super) fn negotiated(seen: &Seen) -> Link {
    let link = |state, detail| Link::new(Step::Negotiated, state, detail);
    let Some(reason) = seen.top_reason() else {
        let state = if seen.total() > 0.0 { State::Ok } else { State::Unknown };
        return link(state, seen.to_string());
    };
    let listed: Vec<String> =
        seen.plaintext.iter().map(|(reason, count)| format!("{count:.0} {reason}")).collect();
    let broken = link(State::Broken, format!("{seen}; in plaintext: {}", listed.join(", "))).because(reason);
    broken.fixed_by(remedy(reason).to_owned())
}

/// What shows more about a reason.
fn remedy(reason: &str) -> &'static str {
    match reason {
        "no_proxy_tls" => "conduit get pods -A -o wide",
        _ => "conduit check --proxy",
    }
}
