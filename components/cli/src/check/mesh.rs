//! Judges what observe tells of the control plane and of the proxies. Pure.
//!
//! How long a certificate still has is judged by its own life: what lives for a day and has ten hours left is fine, what
//! lives for ten years and has ten hours left is not.

use conduit_identity::UnixTime;
use conduit_k8s::owned::{COMPONENT_CA, COMPONENT_DESTINATION, COMPONENT_OBSERVE};
use conduit_observe::diagnosis::{ComponentPod, ControlPlaneState, ProxyItem};
use k8s_openapi::jiff::Timestamp;

use super::{
    catalogue::{
        CA_CLOCK, CA_LEADER, CA_READY, CLOCKS, Check, DESTINATION_READY, FOREIGN, ISSUER, LEAVES, MISMATCHES,
        OBSERVE_READY, PROXY_CLOCKS, PROXY_DESTINATION, PROXY_FILES, PROXY_INJECTED_TLS, PROXY_LEAVES,
        PROXY_READABLE, PROXY_READY, PROXY_TLS, PROXY_VERSION, ROOT, VERSION_CLI, VERSION_CONTROL_PLANE,
    },
    report::{Grade, Outcome},
};

/// Root and issuer are renewed at 70 % of their lives: with less than a quarter left, that has not happened.
const LEFT_OF_CA: f64 = 0.25;
/// A leaf is renewed with 14 of its 27 hours left, give or take half an hour: below this, it is late.
const LEFT_OF_LEAF: f64 = 0.45;
/// Clocks that are kept by NTP are nowhere near this far apart.
const SKEW_WARNING_MS: u64 = 60_000;
/// A certificate is valid from an hour before it was issued on: beyond half of that there is little room left.
const SKEW_ERROR_MS: u64 = 30 * 60_000;
/// Pods that are named in one message.
const MAX_NAMED: usize = 5;

/// The state of the control plane; `ahead_ms` is how far its clock is ahead of this machine's.
pub(super) fn control_plane(state: &ControlPlaneState, ahead_ms: i64) -> Vec<Outcome> {
    let namespace = &state.namespace;
    let mut outcomes: Vec<Outcome> = [
        (COMPONENT_CA, CA_READY),
        (COMPONENT_DESTINATION, DESTINATION_READY),
        (COMPONENT_OBSERVE, OBSERVE_READY),
    ]
    .into_iter()
    .map(|(component, check)| component_ready(component, check, state))
    .collect();
    let cas: Vec<&ComponentPod> =
        state.pods.iter().filter(|pod| pod.component == COMPONENT_CA && pod.failure.is_none()).collect();
    if let Some(ca) = leader(&cas) {
        outcomes.push(one_leads(&cas, namespace));
        outcomes.extend(certificates(ca, namespace, state.now_ms));
        outcomes.extend(oddities(ca, namespace));
    }
    outcomes.push(clocks(state, ahead_ms));
    outcomes
}

fn component_ready(component: &str, check: Check, state: &ControlPlaneState) -> Outcome {
    let (namespace, pods) = (&state.namespace, state.pods.iter().filter(|pod| pod.component == component));
    let pods: Vec<&ComponentPod> = pods.collect();
    let look =
        format!("kubectl -n {namespace} describe pods -l conduit.io/control-plane-component={component}");
    if pods.is_empty() {
        let install = "conduit install | kubectl apply -f -".to_owned();
        return Outcome::not(
            check,
            Grade::Error,
            format!("no pod of {component} is in {namespace}"),
            install,
        );
    }
    let problem = |pod: &&ComponentPod| match (pod.ready, &pod.failure) {
        (false, _) => Some(format!("{} is {} and not ready", pod.pod, pod.status)),
        (true, Some(failure)) => Some(format!("{} does not answer: {failure}", pod.pod)),
        (true, None) => None,
    };
    let problems: Vec<String> = pods.iter().filter_map(problem).collect();
    match problems.len() {
        0 => Outcome::ok(check),
        // Another replica does the work.
        n if n < pods.len() => Outcome::not(check, Grade::Warning, named(&problems), look),
        _ => Outcome::not(check, Grade::Error, named(&problems), look),
    }
}

/// The one that knows, else any.
fn leader<'a>(cas: &[&'a ComponentPod]) -> Option<&'a ComponentPod> {
    cas.iter().copied().find(|ca| is(ca, "conduit_ca_leading")).or_else(|| cas.first().copied())
}

fn is(pod: &ComponentPod, metric: &str) -> bool {
    pod.metrics.get(metric).is_some_and(|value| *value > 0.0)
}

fn one_leads(cas: &[&ComponentPod], namespace: &str) -> Outcome {
    let leaders: Vec<String> =
        cas.iter().filter(|ca| is(ca, "conduit_ca_leading")).map(|ca| ca.pod.clone()).collect();
    match leaders.len() {
        1 => Outcome::ok(CA_LEADER),
        0 => Outcome::not(
            CA_LEADER,
            Grade::Error,
            "no ca leads, so that no certificate is issued",
            format!("kubectl -n {namespace} get lease conduit-ca -o yaml"),
        ),
        _ => Outcome::not(
            CA_LEADER,
            Grade::Warning,
            format!("several lead: {}", named(&leaders)),
            format!(
                "kubectl -n {namespace} get lease conduit-ca -o yaml; this ends by itself within a minute"
            ),
        ),
    }
}

fn certificates(ca: &ComponentPod, namespace: &str, now_ms: u64) -> Vec<Outcome> {
    let now = now_ms as f64 / 1_000.0;
    let log = format!("kubectl -n {namespace} logs deploy/{COMPONENT_CA}");
    let ends = |metric: &str| ca.metrics.get(metric).copied().filter(|seconds| *seconds > 0.0);
    let authority = |check: Check, what: &str| {
        let (begins, ends) = (
            ends(&format!("conduit_ca_{what}_not_before_seconds")),
            ends(&format!("conduit_ca_{what}_not_after_seconds")),
        );
        let Some(ends) = ends else {
            return Outcome::not(check, Grade::Error, format!("the ca has no {what}"), log.clone());
        };
        match begins.map(|begins| (ends - now) / (ends - begins)) {
            _ if ends <= now => {
                Outcome::not(check, Grade::Error, format!("the {what} expired at {}", at(ends)), log.clone())
            }
            Some(left) if left < LEFT_OF_CA => {
                let detail = format!(
                    "the {what} expires at {}, in {}, with {:.0} % of its life left: it should have been renewed",
                    at(ends),
                    span(ends - now),
                    left * 100.0
                );
                Outcome::not(check, Grade::Warning, detail, log.clone())
            }
            _ => Outcome::ok(check),
        }
    };
    let leaves = match ends("conduit_ca_leaf_min_not_after_seconds") {
        Some(ends) if ends <= now => Outcome::not(
            LEAVES,
            Grade::Error,
            format!("a running workload's certificate expired at {}", at(ends)),
            format!("{log}; `conduit check --proxy` names the workload"),
        ),
        _ => Outcome::ok(LEAVES),
    };
    vec![authority(ROOT, "root"), authority(ISSUER, "issuer"), leaves]
}

fn oddities(ca: &ComponentPod, namespace: &str) -> Vec<Outcome> {
    let log = format!("kubectl -n {namespace} logs deploy/{COMPONENT_CA}");
    let count = |metric: &str| ca.metrics.get(metric).copied().unwrap_or_default();
    let unless = |check, metric: &str, grade, detail: &dyn Fn(f64) -> String, hint: &str| match count(metric)
    {
        0.0 => Outcome::ok(check),
        n => Outcome::not(check, grade, detail(n), hint),
    };
    vec![
        unless(
            CA_CLOCK,
            "conduit_ca_clock_behind",
            Grade::Error,
            &|_| format!("the clock of {} is so far behind the API server's that nothing is issued", ca.pod),
            "set the clock of its node, by NTP if possible",
        ),
        unless(
            FOREIGN,
            "conduit_ca_foreign_objects",
            Grade::Warning,
            &|n| {
                format!("{n:.0} Secrets or ConfigMaps have names of Conduit's and were made by somebody else")
            },
            &format!("{log}; delete those that it names, if nothing else needs them"),
        ),
        unless(
            MISMATCHES,
            "conduit_ca_owner_mismatches",
            Grade::Warning,
            &|n| format!("{n:.0} pods claim a workload that they do not belong to, and get no certificate"),
            &format!("{log}; inject anew what it names"),
        ),
    ]
}

/// `ahead_ms` of observe before this machine; the others' are told against observe.
fn clocks(state: &ControlPlaneState, ahead_ms: i64) -> Outcome {
    let own = std::iter::once(("observe".to_owned(), ahead_ms));
    let others = state.pods.iter().filter(|pod| pod.component != COMPONENT_OBSERVE);
    let others =
        others.filter_map(|pod| Some((pod.pod.clone(), pod.clock_ahead_ms?.saturating_add(ahead_ms))));
    skew(CLOCKS, own.chain(others), "this machine's")
}

fn skew(check: Check, clocks: impl Iterator<Item = (String, i64)>, whose: &str) -> Outcome {
    let wrong: Vec<(String, i64)> = clocks.filter(|(_, ms)| ms.unsigned_abs() > SKEW_WARNING_MS).collect();
    let Some(most) = wrong.iter().map(|(_, ms)| ms.unsigned_abs()).max() else { return Outcome::ok(check) };
    let told: Vec<String> = wrong
        .iter()
        .map(|(who, ms)| {
            let how = if *ms > 0 { "ahead of" } else { "behind" };
            format!("the clock of {who} is {} {how} {whose}", span(ms.unsigned_abs() as f64 / 1_000.0))
        })
        .collect();
    let grade = if most > SKEW_ERROR_MS { Grade::Error } else { Grade::Warning };
    Outcome::not(check, grade, named(&told), "set the clocks of these machines, by NTP if possible")
}

/// Which versions meet.
pub(super) fn versions(own: &str, expected: Option<&str>, server: Option<&str>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    if let Some(expected) = expected {
        outcomes.push(match expected == own {
            true => Outcome::ok(VERSION_CLI),
            false => {
                let detail = format!("this program is {own}, expected is {expected}");
                Outcome::not(VERSION_CLI, Grade::Error, detail, format!("install the version {expected}"))
            }
        });
    }
    if let Some(server) = server {
        outcomes.push(match server == own {
            true => Outcome::ok(VERSION_CONTROL_PLANE),
            false => {
                let detail = format!("this program is {own}, the control plane is {server}");
                let hint = "conduit install | kubectl apply -f -, or use the program of its version";
                Outcome::not(VERSION_CONTROL_PLANE, Grade::Warning, detail, hint)
            }
        });
    }
    outcomes
}

/// The proxies, of which the control plane has the version `server`.
pub(super) fn proxies(proxies: &[ProxyItem], server: &str, now: UnixTime) -> Vec<Outcome> {
    let each = |check, grade, hint: &str, problem: &dyn Fn(&ProxyItem) -> Option<String>| {
        let told = |proxy: &ProxyItem| Some(format!("{}/{} {}", proxy.namespace, proxy.pod, problem(proxy)?));
        let told: Vec<String> = proxies.iter().filter_map(told).collect();
        match told.is_empty() {
            true => Outcome::ok(check),
            false => Outcome::not(check, grade, named(&told), hint),
        }
    };
    let with_tls = |proxy: &ProxyItem| proxy.tls_injected && proxy.tls.is_some();
    let pods = "kubectl -n NAMESPACE describe pod POD";
    let why = "conduit why po/POD -n NAMESPACE says which link is broken";
    vec![
        each(PROXY_READY, Grade::Warning, pods, &|proxy| (!proxy.ready).then(|| "is not ready".to_owned())),
        each(PROXY_READABLE, Grade::Error, pods, &|proxy| {
            Some(format!("cannot be read: {}", proxy.failure.as_ref()?))
        }),
        each(
            PROXY_INJECTED_TLS,
            Grade::Warning,
            "inject with --tls=optional, unless that is meant so",
            &|proxy| (!proxy.tls_injected).then(|| "was injected without TLS".to_owned()),
        ),
        each(PROXY_TLS, Grade::Error, why, &|proxy| {
            let reason = proxy.tls.as_deref().filter(|tls| with_tls(proxy) && *tls != "true")?;
            let since = proxy.since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
            Some(format!("has no usable certificate: {reason}{since}"))
        }),
        each(PROXY_FILES, Grade::Warning, why, &|proxy| {
            let failing = proxy.failing.as_ref().filter(|_| proxy.tls.as_deref() == Some("true"))?;
            Some(format!("goes on with an older certificate: {failing}"))
        }),
        each(PROXY_LEAVES, Grade::Warning, "look at the ca's log", &|proxy| late(proxy, now)),
        each(
            PROXY_DESTINATION,
            Grade::Warning,
            "look at the destination service; what proxies know stays in use",
            &|proxy| (proxy.destination_up == Some(false)).then(|| "does not reach it".to_owned()),
        ),
        skew(
            PROXY_CLOCKS,
            proxies.iter().filter_map(|proxy| {
                Some((format!("{}/{}", proxy.namespace, proxy.pod), proxy.clock_ahead_ms?))
            }),
            "the control plane's",
        ),
        each(PROXY_VERSION, Grade::Warning, "inject anew, and roll the workload out", &|proxy| {
            let version = proxy.proxy_version.as_deref().filter(|version| *version != server)?;
            Some(format!("has version {version}, the control plane {server}"))
        }),
    ]
}

/// That a certificate should have been renewed by now.
fn late(proxy: &ProxyItem, now: UnixTime) -> Option<String> {
    let seconds = |text: &Option<String>| Some(text.as_ref()?.parse::<Timestamp>().ok()?.as_second() as f64);
    let (begins, ends) = (seconds(&proxy.not_before)?, seconds(&proxy.not_after)?);
    let left = (ends - now.0.as_secs_f64()) / (ends - begins);
    let is_usable = proxy.tls.as_deref() == Some("true");
    (is_usable && left < LEFT_OF_LEAF).then(|| {
        format!("holds a certificate with {:.0} % of its life left, until {}", left * 100.0, at(ends))
    })
}

/// The first few, and how many more there are.
fn named(all: &[String]) -> String {
    let mut text = all.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join("\n");
    if let Some(more) = all.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
        text.push_str(&format!("\nand {more} more"));
    }
    text
}

fn at(seconds: f64) -> String {
    Timestamp::from_second(seconds as i64).map_or_else(|_| format!("{seconds:.0}"), |at| at.to_string())
}

fn span(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests;
