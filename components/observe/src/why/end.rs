//! The links of one end, each judged for every pod of it.

use std::sync::Arc;

use conduit_identity::UnixTime;
use conduit_k8s::owned::{COMPONENT_CA, IDENTITY_VOLUME};

use super::{
    Facts,
    answer::{End, Link, State, Step, moment},
    reference,
};
use crate::{
    inventory::{Object, Pod},
    kind::Kind,
    proxies::{Proxy, Says},
};

/// injected, issued, mounted, loaded. What cannot hold because of one before it is left out.
pub(super) fn links(end: End, object: &Object, pods: &[Arc<Pod>], facts: &Facts<'_>) -> Vec<Link> {
    let mut links = Vec::new();
    for step in [Step::Injected, Step::Issued, Step::Mounted, Step::Loaded] {
        let looks = pods.iter().map(|pod| Look { pod, object, facts }.at(step));
        let Some(link) = summary(object, looks.collect()) else { return links };
        let stops = link.state == State::Broken && link.step == Step::Injected;
        // Without a proxy here it is the one at the other end that tells of plaintext.
        let reason = match (end, link.reason.as_deref()) {
            (End::From, Some("no_identity")) => Some("no_proxy_tls".to_owned()),
            _ => link.reason,
        };
        links.push(Link { end: Some(end), reason, ..link });
        if stops {
            break;
        }
    }
    links
}

/// The worst of what was found of the pods, and of how many.
fn summary(object: &Object, found: Vec<Link>) -> Option<Link> {
    let count = |state| found.iter().filter(|link| link.state == state).count();
    let worst = [State::Broken, State::Unknown, State::Ok].into_iter().find(|state| count(*state) > 0)?;
    let (bad, all) = (count(worst), found.len());
    let link = found.into_iter().find(|link| link.state == worst)?;
    let who = match (all, worst) {
        (1, _) | (_, State::Ok) => reference(object),
        _ => format!("{bad} of {all} pods of {}", reference(object)),
    };
    Some(Link { detail: format!("{who}: {}", link.detail), ..link })
}

/// One pod, and what is known beside it.
struct Look<'a> {
    pod: &'a Pod,
    object: &'a Object,
    facts: &'a Facts<'a>,
}

impl Look<'_> {
    fn at(&self, step: Step) -> Link {
        match step {
            Step::Issued => self.issued(),
            Step::Mounted => self.mounted(),
            Step::Loaded => self.loaded(),
            _ => self.injected(),
        }
    }

    fn injected(&self) -> Link {
        let link = |state, detail: &str| {
            Link::new(Step::Injected, state, format!("{} {detail}", self.pod.name.name))
        };
        let broken = |detail, reason| {
            let link = link(State::Broken, detail).because(reason).since(self.pod.created, true);
            link.fixed_by(self.inject())
        };
        match (self.pod.meshed, self.pod.tls, &self.pod.identity) {
            (false, ..) => broken("has no proxy of this control plane", "no_identity"),
            (true, false, _) => broken("has a proxy that was injected without TLS", "disabled"),
            (true, true, None) => {
                link(State::Unknown, "has a proxy, but whose pod it is cannot be confirmed")
            }
            (true, true, Some(_)) => link(State::Ok, "has a proxy with TLS"),
        }
    }

    /// Whether there is a Secret with the right things in it: what the proxy found in the files tells.
    fn issued(&self) -> Link {
        let Some(says) = self.says() else { return self.unread(Step::Issued) };
        let secret = self.secret();
        let since = self.proxy().and_then(|proxy| proxy.since);
        let broken = |detail: String, reason: &str, fix| {
            let link = Link::new(Step::Issued, State::Broken, detail).because(reason).fixed_by(fix);
            link.since(since.map(|since| since.at), since.is_some_and(|since| since.is_exact))
        };
        let namespace = &self.pod.name.namespace;
        match says.tls.as_deref() {
            Some("bad_credentials") => {
                let files = says.failing.as_deref().unwrap_or("no more is known");
                let detail = format!(
                    "the Secret {secret} holds no certificate of this pod from a root of this mesh ({files})"
                );
                broken(detail, "bad_credentials", format!("kubectl -n {namespace} delete secret {secret}"))
            }
            Some("expired") => self.expired(says, &secret, broken),
            Some("clock_skew") => {
                let from =
                    says.not_before.and_then(moment).map(|at| format!(" before {at}")).unwrap_or_default();
                let detail = format!(
                    "the certificate in {secret} is not valid{from}: a clock is wrong, this node's or the CA's"
                );
                broken(detail, "clock_skew", self.facts.look_at(COMPONENT_CA) + " -o wide")
            }
            Some("no_config") if !self.facts.runs(COMPONENT_CA) => {
                let detail = format!("no ca runs that could make the Secret {secret}");
                broken(detail, "no_config", self.facts.look_at(COMPONENT_CA))
            }
            Some("no_config") => {
                let detail =
                    format!("the ca runs; whether it has made the Secret {secret} cannot be seen from here");
                let link = Link::new(Step::Issued, State::Unknown, detail);
                link.fixed_by(format!("kubectl -n {namespace} get secret {secret}"))
            }
            _ => self.name(says, &secret, broken),
        }
    }

    fn expired(&self, says: &Says, secret: &str, broken: impl Fn(String, &str, String) -> Link) -> Link {
        let at = says.not_after.and_then(moment).map(|at| format!(" at {at}")).unwrap_or_default();
        let ca = if self.facts.runs(COMPONENT_CA) {
            "the ca runs: look at its log and its clock"
        } else {
            "no ca runs"
        };
        let detail = format!("the certificate in {secret} expired{at}; {ca}");
        let namespace = &self.facts.control_plane.namespace;
        let link = broken(detail, "expired", format!("kubectl -n {namespace} logs deploy/{COMPONENT_CA}"));
        match says.not_after.filter(|at| *at <= self.facts.now) {
            Some(at) => link.since(Some(at), true),
            None => link,
        }
    }

    /// Whether a certificate that is held is for the name by which others ask for this pod.
    fn name(&self, says: &Says, secret: &str, broken: impl Fn(String, &str, String) -> Link) -> Link {
        match (&says.identity, &self.pod.identity) {
            (Some(proven), Some(expected)) if proven != expected.as_str() => {
                let detail = format!("the certificate is for {proven}, the pod is {expected}");
                broken(detail, "handshake_failed", self.inject())
            }
            (Some(_), _) => {
                let until = says.not_after.and_then(moment).map(|at| format!(", valid until {at}"));
                let detail = format!("{secret} holds its certificate{}", until.unwrap_or_default());
                Link::new(Step::Issued, State::Ok, detail)
            }
            (None, _) => {
                Link::new(Step::Issued, State::Unknown, "the proxy does not say what it holds".to_owned())
            }
        }
    }

    fn mounted(&self) -> Link {
        let broken = |detail: String| {
            let link = Link::new(Step::Mounted, State::Broken, detail).because("no_config");
            link.since(self.pod.created, true).fixed_by(self.inject())
        };
        let expected = self.expected_secret();
        match (&self.pod.mounts, expected) {
            (None, _) => {
                broken(format!("the volume {IDENTITY_VOLUME} of {} has no Secret", self.pod.name.name))
            }
            (Some(found), Some(expected)) if *found != expected && !self.can_do_tls() => {
                broken(format!("{} mounts the Secret {found}, its own is {expected}", self.pod.name.name))
            }
            (Some(found), _) => {
                Link::new(Step::Mounted, State::Ok, format!("{} mounts {found}", self.pod.name.name))
            }
        }
    }

    fn loaded(&self) -> Link {
        let Some(says) = self.says() else { return self.unread(Step::Loaded) };
        let since = self.proxy().and_then(|proxy| proxy.since);
        let broken = |detail: String, reason: &str, fix: String| {
            let link = Link::new(Step::Loaded, State::Broken, detail).because(reason).fixed_by(fix);
            link.since(since.map(|since| since.at), since.is_some_and(|since| since.is_exact))
        };
        let (namespace, pod, secret) = (&self.pod.name.namespace, &self.pod.name.name, self.secret());
        match says.tls.as_deref() {
            Some("true") => Link::new(Step::Loaded, State::Ok, loaded(says, self.facts.now)),
            Some("disabled") => {
                broken(format!("TLS is off in the proxy of {pod}"), "disabled", self.inject())
            }
            Some("no_config") => {
                let file = says.failing.as_deref().unwrap_or("no file");
                let detail = format!(
                    "the proxy of {pod} finds no certificate ({file}); a new Secret takes up to 2 minutes to get there"
                );
                broken(detail, "no_config", format!("kubectl -n {namespace} get secret {secret}"))
            }
            Some(reason) => {
                let detail = format!("the proxy of {pod} holds nothing that it can use");
                broken(detail, reason, format!("kubectl -n {namespace} get secret {secret}"))
            }
            None => Link::new(
                Step::Loaded,
                State::Unknown,
                format!("the proxy of {pod} does not say; it may be of an older version"),
            ),
        }
    }

    fn proxy(&self) -> Option<&Proxy> {
        self.facts.proxies.get(&self.pod.name)
    }

    fn says(&self) -> Option<&Says> {
        self.proxy().and_then(|proxy| proxy.says.as_ref())
    }

    fn can_do_tls(&self) -> bool {
        self.says().and_then(Says::can_do_tls) == Some(true)
    }

    fn unread(&self, step: Step) -> Link {
        let failure = self.proxy().and_then(|proxy| proxy.failure.as_deref());
        let why = failure.unwrap_or("it has not been read yet");
        let detail = format!("the proxy of {} cannot be asked: {why}", self.pod.name.name);
        let fix = format!("kubectl -n {} describe pod {}", self.pod.name.namespace, self.pod.name.name);
        Link::new(step, State::Unknown, detail).fixed_by(fix)
    }

    fn expected_secret(&self) -> Option<String> {
        Some(self.pod.identity.as_ref()?.workload()?.secret_name())
    }

    fn secret(&self) -> String {
        self.pod
            .mounts
            .clone()
            .or_else(|| self.expected_secret())
            .unwrap_or_else(|| "of its certificate".to_owned())
    }

    /// The command that injects what the pod is made from.
    fn inject(&self) -> String {
        let owners = self.pod.owners.iter().filter(|(kind, _)| **kind != Kind::Pod);
        let owner =
            owners.max_by_key(|(kind, _)| **kind).map(|(kind, name)| format!("{}/{name}", kind.short()));
        let what = owner.unwrap_or_else(|| match self.object.kind {
            Kind::Pod | Kind::Service => format!("po/{}", self.pod.name.name),
            _ => reference(self.object),
        });
        let (namespace, own) = (&self.pod.name.namespace, &self.facts.control_plane.namespace);
        format!(
            "kubectl -n {namespace} get {what} -o yaml | conduit inject -c {own} --tls=optional - | kubectl apply -f -"
        )
    }
}

/// What a proxy that can do TLS holds.
fn loaded(says: &Says, now: UnixTime) -> String {
    let fingerprint = says.fingerprint.as_deref().unwrap_or("unknown");
    let short = fingerprint.get(..16).unwrap_or(fingerprint);
    let left = says.not_after.map(|until| until.since(now).as_secs() / 60);
    let left = left
        .map(|minutes| format!(", for another {} h {} min", minutes / 60, minutes % 60))
        .unwrap_or_default();
    let stuck = says
        .failing
        .as_ref()
        .map(|why| format!("; the files there now are not usable: {why}"))
        .unwrap_or_default();
    format!("the proxy uses the certificate {short}{left}{stuck}")
}
