//! Whether what one workload sends to another is encrypted, and if not, where the chain that leads to TLS is broken.
//! Pure: facts in, verdict out.
//!
//! The verdict is what was seen on the wire, where anything was: the proxies' counts of the last seconds, else of the last
//! minute. The links say why it is so, in the order in which they depend on each other; the first broken one is what to
//! repair. Without traffic a broken link is the verdict as well, and a whole chain is none: nobody has seen a byte.
//!
//! - `why/answer.rs`: the answer, as JSON has it
//! - `why/seen.rs`: what the proxies counted between two ends
//! - `why/end.rs`: the links of one end: injected, issued, mounted, loaded
//! - `why/between.rs`: the links between two: advertised, negotiated
//!
//! Secrets cannot be looked at from here, on purpose: whoever may read them holds the keys. What a proxy says of the files
//! that it found counts instead, and where that says too little, the answer names the command that a person can run.

use std::{collections::BTreeMap, sync::Arc};

use conduit_identity::{ControlPlane, UnixTime};
use conduit_k8s::owned::{COMPONENT_CA, COMPONENT_DESTINATION, LABEL_COMPONENT};

use crate::{
    inventory::{Inventory, Object, Pod},
    kind::Kind,
    proxies::Proxy,
    row::Stat,
    samples::{PodName, Samples},
};

mod answer;
mod between;
mod end;
mod seen;

pub(crate) use answer::moment;
pub use answer::{End, Link, Seen, State, Step, Verdict, Why};
pub(crate) use seen::LATEST;

/// Who is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Who sends.
    pub from: Object,
    /// Who receives; anybody, and whatever arrives at `from` too, when there is none.
    pub to: Option<Object>,
}

/// What is known.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What runs in the cluster.
    pub inventory: &'a Inventory,
    /// What the proxies say of themselves.
    pub proxies: &'a BTreeMap<PodName, Proxy>,
    /// What happened in the last seconds, and in the last minute.
    pub samples: [&'a Samples; 2],
    /// Whose mesh it is.
    pub control_plane: &'a ControlPlane,
    /// What time it is.
    pub now: UnixTime,
}

/// Answers `question`.
pub fn answer(question: &Question, facts: &Facts<'_>) -> Why {
    let from = facts.pods(&question.from);
    let to = question.to.as_ref().map(|to| facts.pods(to));
    let seen = seen::between(question, to.as_deref(), facts);

    let mut links = vec![installed(facts)];
    links.extend(end::links(End::From, &question.from, &from, facts));
    if let (Some(object), Some(pods)) = (&question.to, &to) {
        links.extend(end::links(End::To, object, pods, facts));
    }
    links.push(between::advertised(&from, to.as_deref(), &seen, facts));
    links.push(between::negotiated(&seen));

    let missing = missing(question, &from, to.as_deref());
    let (verdict, summary) = verdict(question, missing.as_deref(), &seen, &links);
    Why {
        version: Stat::VERSION,
        verdict,
        summary,
        from: reference(&question.from),
        from_namespace: question.from.namespace.clone(),
        to: question.to.as_ref().map(reference),
        to_namespace: question.to.as_ref().map(|to| to.namespace.clone()),
        links,
        seen,
    }
}

impl Facts<'_> {
    fn pods(&self, object: &Object) -> Vec<Arc<Pod>> {
        self.inventory.pods_of(object.kind, Some(&object.namespace), Some(&object.name))
    }

    /// Whether a component of the control plane has a ready pod.
    fn runs(&self, component: &str) -> bool {
        let is_of = |pod: &Pod| pod.labels.get(LABEL_COMPONENT).is_some_and(|label| label == component);
        self.inventory.in_namespace(&self.control_plane.namespace).any(|pod| is_of(pod) && pod.ready)
    }

    /// The command that shows what has become of a component.
    fn look_at(&self, component: &str) -> String {
        let namespace = &self.control_plane.namespace;
        format!("kubectl -n {namespace} get pods -l {LABEL_COMPONENT}={component}")
    }
}

/// The control plane is there. (Observe is: it answers.)
fn installed(facts: &Facts<'_>) -> Link {
    let namespace = &facts.control_plane.namespace;
    let down: Vec<&str> = [COMPONENT_CA, COMPONENT_DESTINATION]
        .into_iter()
        .filter(|component| !facts.runs(component))
        .collect();
    match down[..] {
        [] => {
            Link::new(Step::Installed, State::Ok, format!("ca, destination and observe run in {namespace}"))
        }
        [first, ..] => {
            let detail = format!("no ready pod of {} in {namespace}", down.join(" and "));
            Link::new(Step::Installed, State::Broken, detail).fixed_by(facts.look_at(first))
        }
    }
}

/// An end without a running pod, in words.
fn missing(question: &Question, from: &[Arc<Pod>], to: Option<&[Arc<Pod>]>) -> Option<String> {
    let to = question.to.as_ref().zip(to);
    let ends = [Some((&question.from, from)), to].into_iter().flatten();
    let mut empty = ends.filter(|(_, pods)| pods.is_empty()).map(|(object, _)| reference(object));
    empty.next().map(|name| format!("{name} has no running pod"))
}

fn verdict(question: &Question, missing: Option<&str>, seen: &Seen, links: &[Link]) -> (Verdict, String) {
    let who = match &question.to {
        Some(to) => format!("{} → {}", reference(&question.from), reference(to)),
        None => reference(&question.from),
    };
    // What has no proxy is not seen, whatever its siblings do.
    let unseen = links.iter().find(|link| {
        link.state == State::Broken && link.step == Step::Injected && link.end == Some(End::From)
    });
    // The CA and the destination service may be down while what they once said is still in use.
    let broken = links.iter().find(|link| link.state == State::Broken && link.step != Step::Installed);
    let doubtless = links.iter().find(|link| link.is_doubtless());
    let because = |link: &Link| format!("{}: {}", link.name(), link.detail);
    if seen.total() > 0.0 {
        return match (seen.plaintext.is_empty(), unseen) {
            (true, None) => (Verdict::Encrypted, format!("{who} is encrypted: {seen}")),
            (true, Some(link)) => {
                (Verdict::Plaintext, format!("{who} is encrypted in part: {}", because(link)))
            }
            (false, _) => {
                let why = broken.map(because).unwrap_or_default();
                let how = if seen.encrypted > 0.0 { "encrypted in part" } else { "not encrypted" };
                (Verdict::Plaintext, format!("{who} is {how}: {seen}; {why}"))
            }
        };
    }
    match (missing, doubtless) {
        (Some(missing), _) => (Verdict::Unknown, format!("{who}: cannot tell: {missing}")),
        (None, Some(link)) => (Verdict::Plaintext, format!("{who} cannot be encrypted: {}", because(link))),
        (None, None) => (Verdict::Unknown, format!("{who}: cannot tell: {seen}")),
    }
}

/// `deploy/web`.
fn reference(object: &Object) -> String {
    format!("{}/{}", object.kind.short(), object.name)
}

/// Whether objects of this kind can be asked about, as who sends or as who receives.
pub fn is_asked_about(kind: Kind, end: End) -> bool {
    kind.is_workload() || (end == End::To && kind == Kind::Service)
}

#[cfg(test)]
mod tests;
