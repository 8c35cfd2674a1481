//! Secrets and bundles, damaged as an operator or a bug would: through the API.

use std::time::Duration;

use conduit_identity::{UnixTime, Workload};
use conduit_k8s::owned;
use conduit_mesh::Mesh;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};

use super::Damage;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Damages the Secret of `victim`; `other` is where another certificate is taken from. How many objects that changed.
pub(super) async fn damage(
    mesh: &Mesh,
    victim: &Workload,
    other: &Workload,
    damage: Damage,
) -> Result<u64, String> {
    let api: Api<Secret> = Api::namespaced(mesh.client(), &victim.namespace);
    let name = victim.secret_name();
    let told = |error: kube::Error| error.to_string();
    let Some(mut secret) = api.get_opt(&name).await.map_err(told)? else { return Ok(0) };
    if matches!(damage, Damage::Removed | Damage::WrongRoot) {
        api.delete(&name, &DeleteParams::default()).await.map_err(told)?;
        if damage == Damage::WrongRoot {
            mesh.foreign_certificate(victim).await.map_err(|error| error.to_string())?;
        }
        return Ok(1);
    }
    if let Some(at) = issued(mesh, damage) {
        let leaf = mesh.leaf_issued_at(victim, at).await.map_err(|error| error.to_string())?;
        let Some(leaf) = leaf else { return Ok(0) };
        let data = secret.data.get_or_insert_default();
        data.insert(owned::SECRET_CERT_KEY.to_owned(), ByteString(leaf.chain.into_bytes()));
        let key = leaf.key.reveal().as_bytes().to_vec();
        data.insert(owned::SECRET_PRIVATE_KEY.to_owned(), ByteString(key));
        api.replace(&name, &PostParams::default(), &secret).await.map_err(told)?;
        return Ok(1);
    }
    let others: Api<Secret> = Api::namespaced(mesh.client(), &other.namespace);
    let theirs = others.get_opt(&other.secret_name()).await.map_err(told)?;
    let theirs = theirs.and_then(|secret| secret.data).unwrap_or_default();
    let data = secret.data.get_or_insert_default();
    let taken: &[&str] = match damage {
        Damage::KeyMismatch => &[owned::SECRET_PRIVATE_KEY],
        Damage::Swapped => &[owned::SECRET_PRIVATE_KEY, owned::SECRET_CERT_KEY],
        _ => &[],
    };
    for key in taken {
        match theirs.get(*key) {
            Some(value) => drop(data.insert((*key).to_owned(), value.clone())),
            None => return Ok(0),
        }
    }
    if damage == Damage::Truncated
        && let Some(ByteString(certificate)) = data.get_mut(owned::SECRET_CERT_KEY)
    {
        certificate.truncate(certificate.len() / 2);
    }
    api.replace(&name, &PostParams::default(), &secret).await.map_err(told)?;
    Ok(1)
}

/// When a certificate was issued that is not valid now.
fn issued(mesh: &Mesh, damage: Damage) -> Option<UnixTime> {
    let now = mesh.clock().now();
    match damage {
        Damage::Expired => Some(past(mesh)),
        Damage::NotYetValid => Some(now + DAY),
        _ => None,
    }
}

/// When a certificate was issued that has just expired, by all clocks but those that are far behind.
pub(super) fn past(mesh: &Mesh) -> UnixTime {
    mesh.clock().now() - mesh.lifetimes().leaf - DAY / 12
}

/// Puts a root of which nothing is in the place of a namespace's trust bundle.
pub(super) async fn replace_bundle(mesh: &Mesh, namespace: &str) -> Result<u64, String> {
    let api: Api<ConfigMap> = Api::namespaced(mesh.client(), namespace);
    let told = |error: kube::Error| error.to_string();
    let Some(mut bundle) = api.get_opt(owned::BUNDLE_CONFIGMAP).await.map_err(told)? else { return Ok(0) };
    let root = mesh.foreign_root().map_err(|error| error.to_string())?;
    bundle.data.get_or_insert_default().insert(owned::BUNDLE_KEY.to_owned(), root);
    api.replace(owned::BUNDLE_CONFIGMAP, &PostParams::default(), &bundle).await.map_err(told)?;
    Ok(1)
}

/// Removes the trust bundle of a namespace.
pub(super) async fn remove_bundle(mesh: &Mesh, namespace: &str) -> Result<u64, String> {
    let api: Api<ConfigMap> = Api::namespaced(mesh.client(), namespace);
    match api.delete(owned::BUNDLE_CONFIGMAP, &DeleteParams::default()).await {
        Ok(_) => Ok(1),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(0),
        Err(error) => Err(error.to_string()),
    }
}

/// Removes a certificate, so that the CA makes another one. Whether there was one.
pub(super) async fn remove(mesh: &Mesh, victim: &Workload) -> Result<bool, String> {
    let api: Api<Secret> = Api::namespaced(mesh.client(), &victim.namespace);
    match api.delete(&victim.secret_name(), &DeleteParams::default()).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}
