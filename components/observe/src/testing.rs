//! Values that several files' tests are made of.

use std::collections::BTreeMap;

use crate::{inventory::Pod, kind::Kind, samples::PodName};

/// A running, meshed pod of a deployment.
pub(crate) fn pod(namespace: &str, deployment: &str, number: u32) -> Pod {
    let name = PodName::new(namespace, format!("{deployment}-{number}"));
    Pod {
        uid: name.to_string(),
        owners: BTreeMap::from([(Kind::Pod, name.name.clone()), (Kind::Deployment, deployment.to_owned())]),
        labels: BTreeMap::from([("app".to_owned(), deployment.to_owned())]),
        status: "Running".to_owned(),
        running: true,
        ready: true,
        meshed: true,
        tls: true,
        ip: None,
        metrics_port: 4191,
        tap_port: 4190,
        identity: None,
        created: None,
        mounts: None,
        proxy_version: None,
        name,
    }
}
