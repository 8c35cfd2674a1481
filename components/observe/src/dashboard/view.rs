//! What a page is rendered from: one look at the cluster and at the last minute.

use std::sync::Arc;

use conduit_identity::ControlPlane;

use crate::{
    api::Api,
    edges::{self, Edge, Grain, Seen},
    inventory::Inventory,
    kind::Kind,
    problem::Problem,
    query::{DEFAULT_WINDOW, MAX_WINDOW, Query},
    row::Row,
    samples::Samples,
    stat,
};

/// Kinds of workloads: who has pods of its own.
pub(super) const WORKLOADS: [Kind; 6] = [
    Kind::Deployment,
    Kind::StatefulSet,
    Kind::DaemonSet,
    Kind::CronJob,
    Kind::Job,
    Kind::ReplicationController,
];

/// One look.
pub(super) struct View {
    pub(super) inventory: Arc<Inventory>,
    pub(super) samples: Samples,
    before: Samples,
    control_plane: ControlPlane,
}

impl View {
    /// Looks now.
    ///
    /// # Errors
    /// The cluster is not known yet, or the source of numbers cannot be asked.
    pub(super) async fn of(api: &Api) -> Result<Self, Problem> {
        let inventory = api.inventory()?;
        let (samples, before) =
            (api.source.samples(DEFAULT_WINDOW).await?, api.source.samples(MAX_WINDOW).await?);
        Ok(Self { inventory, samples, before, control_plane: api.control_plane.clone() })
    }

    /// The namespace of the control plane.
    pub(super) fn control_plane(&self) -> &str {
        &self.control_plane.namespace
    }

    /// Rows of `kinds`, of one namespace or of all.
    pub(super) fn rows(&self, kinds: &[Kind], namespace: Option<&str>) -> Vec<Row> {
        self.ask(kinds, namespace, None)
    }

    /// The row of one object.
    pub(super) fn row(&self, kind: Kind, namespace: &str, name: &str) -> Option<Row> {
        self.ask(&[kind], Some(namespace), Some(name)).into_iter().next()
    }

    fn ask(&self, kinds: &[Kind], namespace: Option<&str>, name: Option<&str>) -> Vec<Row> {
        let query = Query {
            kinds: kinds.to_vec(),
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            selector: None,
            to: None,
            from: None,
            window: DEFAULT_WINDOW,
        };
        stat::rows(&query, &self.samples, &self.inventory)
    }

    /// Who talks to whom.
    pub(super) fn edges(&self, grain: Grain) -> Vec<Edge> {
        edges::edges(&Seen {
            now: &self.samples,
            before: &self.before,
            inventory: &self.inventory,
            control_plane: &self.control_plane,
            grain,
        })
    }
}
