//! Secrets and bundles, damaged as an operator or a bug would: through the API.

use conduit_identity::Workload;
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

/// Removes the trust bundle of a namespace.
pub(super) async fn remove_bundle(mesh: &Mesh, namespace: &str) -> Result<u64, String> {
    let api: Api<ConfigMap> = Api::namespaced(mesh.client(), namespace);
    match api.delete(owned::BUNDLE_CONFIGMAP, &DeleteParams::default()).await {
        Ok(_) => Ok(1),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(0),
        Err(error) => Err(error.to_string()),
    }
}

/// Removes a foreign certificate, which the CA never touches, so that it makes its own.
pub(super) async fn remove(mesh: &Mesh, victim: &Workload) -> Result<(), String> {
    let api: Api<Secret> = Api::namespaced(mesh.client(), &victim.namespace);
    match api.delete(&victim.secret_name(), &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
