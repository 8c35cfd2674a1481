//! Words as messages.

use std::net::SocketAddr;

use conduit_proto::destination::{self as proto, update};

use crate::{
    subscribe::Word,
    view::{Endpoint, Step},
};

/// The message that says `word`.
pub(crate) fn update(word: &Word) -> proto::Update {
    proto::Update { update: word.step.as_ref().map(step), stale: word.is_stale }
}

fn step(step: &Step) -> update::Update {
    match step {
        Step::Unknown => update::Update::Unknown(proto::Unknown {}),
        Step::Snapshot(known) => update::Update::Snapshot(proto::Snapshot {
            service: known.service.clone(),
            labels: known.labels.clone(),
            endpoints: known.endpoints.iter().map(endpoint).collect(),
        }),
        Step::Diff { upsert, remove } => update::Update::Diff(proto::Diff {
            upsert: upsert.iter().map(endpoint).collect(),
            remove: remove.iter().map(ToString::to_string).collect(),
        }),
    }
}

fn endpoint((address, endpoint): (&SocketAddr, &Endpoint)) -> proto::Endpoint {
    proto::Endpoint {
        address: address.to_string(),
        labels: (*endpoint.labels).clone(),
        identity: endpoint.identity.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// The `kind` under which a message is counted.
pub(crate) fn kind(word: &Word) -> &'static str {
    match word.step {
        None => "standing",
        Some(Step::Unknown) => "unknown",
        Some(Step::Snapshot(_)) => "snapshot",
        Some(Step::Diff { .. }) => "diff",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use conduit_identity::Identity;

    use super::*;
    use crate::view::Known;

    #[test]
    fn every_step_has_its_message() {
        let address: SocketAddr = "[fd00::1]:80".parse().unwrap();
        let known = Endpoint {
            labels: Arc::new([("pod".to_owned(), "web-1".to_owned())].into()),
            identity: Some(Identity::parse("web.example").unwrap()),
            node: Some("node-1".into()),
        };
        let told = proto::Endpoint {
            address: "[fd00::1]:80".into(),
            labels: [("pod".to_owned(), "web-1".to_owned())].into(),
            identity: "web.example".into(),
        };
        let snapshot = Known {
            service: "web.shop.svc.cluster.local:80".into(),
            endpoints: [(address, known.clone())].into(),
            ..Known::default()
        };
        let message = said(Step::Snapshot(Arc::new(snapshot)));
        let Some(update::Update::Snapshot(snapshot)) = message.update else { panic!("{message:?}") };
        assert_eq!(snapshot.service, "web.shop.svc.cluster.local:80");
        assert_eq!(snapshot.endpoints, std::slice::from_ref(&told));

        let message = said(Step::Diff { upsert: [(address, known)].into(), remove: [address].into() });
        let diff = proto::Diff { upsert: vec![told], remove: vec!["[fd00::1]:80".into()] };
        assert_eq!(message.update, Some(update::Update::Diff(diff)));
        assert_eq!(said(Step::Unknown).update, Some(update::Update::Unknown(proto::Unknown {})));
        assert_eq!(update(&Word { step: None, is_stale: true }), proto::Update { update: None, stale: true });
    }

    fn said(step: Step) -> proto::Update {
        update(&Word { step: Some(step), is_stale: false })
    }
}
