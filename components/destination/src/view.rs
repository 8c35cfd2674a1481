//! What a client is told: views of the index, and the steps from one view to the next. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use conduit_identity::Identity;

/// Labels, as metrics name them.
pub type Labels = BTreeMap<String, String>;

/// What is known of a query at one moment. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// Nothing: the client goes where it was going.
    Unknown,
    /// A Service, or a pod.
    Known(Arc<Known>),
}

/// Who answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// "name.namespace.svc.<zone>:port"; empty for an address that is no Service's.
    pub service: String,
    /// Labels of the Service.
    pub labels: Labels,
    /// Who answers, by address. Empty: the Service exists, and nothing answers.
    pub endpoints: BTreeMap<SocketAddr, Endpoint>,
    /// What the Service demands of the choice among them.
    pub choice: Choice,
}

/// One endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Labels of its pod.
    pub labels: Arc<Labels>,
    /// What its proxy proves; none when there is no proxy with TLS of our control plane.
    pub identity: Option<Identity>,
    /// The node its pod is on, when it is known.
    pub node: Option<Arc<str>>,
}

/// What kube-proxy would do about the choice of an endpoint, and what a client that chooses by itself must do too: an
/// application may rely on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Choice {
    /// `sessionAffinity: ClientIP`: one client always gets the same endpoint.
    pub by_client: bool,
    /// `internalTrafficPolicy: Local`: only endpoints on the client's node.
    pub on_node: bool,
}

/// How a client's set changes. Applied to what the client has, it gives what the client should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Everything, replacing what there was.
    Snapshot(Arc<Known>),
    /// Changes.
    Diff {
        /// New endpoints, and known ones whose metadata changed.
        upsert: BTreeMap<SocketAddr, Endpoint>,
        /// Endpoints that left.
        remove: BTreeSet<SocketAddr>,
    },
    /// Nothing is known any more.
    Unknown,
}

impl View {
    /// The step to `next` for a client that has been told this; none when it need not be told anything.
    pub fn step_to(&self, next: &Self) -> Option<Step> {
        match (self, next) {
            (Self::Unknown, Self::Unknown) => None,
            (Self::Known(_), Self::Unknown) => Some(Step::Unknown),
            (Self::Unknown, Self::Known(known)) => Some(Step::Snapshot(Arc::clone(known))),
            (Self::Known(before), Self::Known(after)) if before.tells_the_same_of_itself(after) => {
                before.diff(after)
            }
            (Self::Known(_), Self::Known(after)) => Some(Step::Snapshot(Arc::clone(after))),
        }
    }

    /// What a client has after `step`; the inverse of [`View::step_to`].
    #[must_use]
    pub fn after(&self, step: &Step) -> Self {
        match (step, self) {
            (Step::Unknown, _) => Self::Unknown,
            (Step::Snapshot(known), _) => Self::Known(Arc::clone(known)),
            (Step::Diff { upsert, remove }, before) => {
                let mut known = match before {
                    Self::Unknown => Known::default(),
                    Self::Known(known) => (**known).clone(),
                };
                known.endpoints.retain(|address, _| !remove.contains(address));
                known.endpoints.extend(upsert.clone());
                Self::Known(Arc::new(known))
            }
        }
    }

    /// The first step of a client that has been told nothing.
    pub fn first(&self) -> Step {
        match self {
            Self::Unknown => Step::Unknown,
            Self::Known(known) => Step::Snapshot(Arc::clone(known)),
        }
    }
}

impl Known {
    fn tells_the_same_of_itself(&self, other: &Self) -> bool {
        self.service == other.service && self.labels == other.labels
    }

    /// A diff, or the snapshot where that is no longer.
    fn diff(&self, after: &Arc<Self>) -> Option<Step> {
        let changed = |(address, endpoint): &(&SocketAddr, &Endpoint)| {
            self.endpoints.get(address).is_none_or(|before| !before.tells_the_same(endpoint))
        };
        let upsert: BTreeMap<_, _> = after
            .endpoints
            .iter()
            .filter(changed)
            .map(|(address, endpoint)| (*address, endpoint.clone()))
            .collect();
        let gone = self.endpoints.keys().filter(|address| !after.endpoints.contains_key(address));
        let remove: BTreeSet<_> = gone.copied().collect();
        match upsert.len() + remove.len() {
            0 => None,
            changes if changes > after.endpoints.len() => Some(Step::Snapshot(Arc::clone(after))),
            _ => Some(Step::Diff { upsert, remove }),
        }
    }
}

impl Endpoint {
    /// Whether a client that was told the other would learn nothing from this: it is not told of nodes.
    fn tells_the_same(&self, other: &Self) -> bool {
        self.identity == other.identity
            && (Arc::ptr_eq(&self.labels, &other.labels) || self.labels == other.labels)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint() -> impl Strategy<Value = Endpoint> {
        (0..3_u8, 0..3_u8).prop_map(|(label, identity)| Endpoint {
            labels: Arc::new([("pod".to_owned(), format!("p{label}"))].into()),
            identity: match identity {
                0 => None,
                n => Identity::parse(&format!("id{n}.example")).ok(),
            },
            node: None,
        })
    }

    fn view() -> impl Strategy<Value = View> {
        let endpoints = proptest::collection::btree_map(0..12_u8, endpoint(), 0..12);
        let known = (0..2_u8, endpoints).prop_map(|(service, endpoints)| {
            let addressed = |(n, endpoint)| (SocketAddr::from(([10, 1, 0, n], 80)), endpoint);
            View::Known(Arc::new(Known {
                service: format!("s{service}"),
                endpoints: endpoints.into_iter().map(addressed).collect(),
                ..Known::default()
            }))
        });
        prop_oneof![1 => Just(View::Unknown), 6 => known]
    }

    proptest! {
        #[test]
        fn a_client_that_applies_every_step_has_the_view(views in proptest::collection::vec(view(), 1..12)) {
            let mut client = View::Unknown.after(&views[0].first());
            prop_assert_eq!(&client, &views[0]);
            for pair in views.windows(2) {
                match pair[0].step_to(&pair[1]) {
                    Some(step) => client = client.after(&step),
                    None => prop_assert_eq!(&pair[0], &pair[1]),
                }
                prop_assert_eq!(&client, &pair[1]);
            }
        }

        #[test]
        fn a_client_that_skips_views_has_the_last_one(views in proptest::collection::vec(view(), 2..12)) {
            let (first, last) = (&views[0], &views[views.len() - 1]);
            let client = first.step_to(last).map_or_else(|| first.clone(), |step| first.after(&step));
            prop_assert_eq!(&client, last);
        }
    }

    #[test]
    fn one_change_among_many_is_a_small_step() {
        let known = |changed: u8| {
            let endpoint = |n: u8| Endpoint {
                labels: Arc::new([("pod".to_owned(), format!("p{n}-{}", n == changed))].into()),
                ..Endpoint::default()
            };
            let endpoints = (0..9).map(|n| (SocketAddr::from(([10, 1, 0, n], 80)), endpoint(n))).collect();
            View::Known(Arc::new(Known { endpoints, ..Known::default() }))
        };
        let Some(Step::Diff { upsert, remove }) = known(200).step_to(&known(4)) else {
            panic!("a diff expected")
        };
        assert_eq!((upsert.len(), remove.len()), (1, 0));
    }
}
