//! Who may tap. Paths and authorities of requests are worth protecting, and reaching a Service is no right to them.
//!
//! Whoever comes over the pod's own loopback came by port-forward: the API server knows them, and let them in. Anybody else
//! shows a token that the API server knows, of somebody who would have been let in that way.

use std::{net::IpAddr, time::Duration};

use axum::http::{HeaderValue, StatusCode};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use tokio::time::timeout;

use crate::problem::Problem;

/// How long the API server may take for one answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Octets of a token; those of service accounts have some 1,200.
const MAX_TOKEN: usize = 8 << 10;

/// Asks the API server who somebody is, and what they may.
#[derive(Clone)]
pub(crate) struct Authorizer {
    client: Client,
    namespace: String,
}

impl Authorizer {
    /// Judges by the rights in `namespace`, the control plane's.
    pub(crate) fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace }
    }

    /// Whether who comes from `peer` with this `Authorization` may tap.
    ///
    /// # Errors
    /// They may not, or the API server does not say.
    pub(crate) async fn check(
        &self,
        peer: IpAddr,
        authorization: Option<&HeaderValue>,
    ) -> Result<(), Problem> {
        if peer.to_canonical().is_loopback() {
            return Ok(());
        }
        let token = authorization.and_then(bearer).ok_or_else(|| {
            unauthorized("a tap from within the cluster needs a bearer token; `conduit tap` needs none, it comes by port-forward")
        })?;
        let user = self.user(token).await?;
        let name = user.username.clone().unwrap_or_default();
        if self.may_forward_ports(user).await? {
            return Ok(());
        }
        let namespace = &self.namespace;
        let detail = format!(
            "{name} may not create pods/portforward in the namespace {namespace}, which is the right to tap"
        );
        Err(Problem::new(StatusCode::FORBIDDEN, "not allowed", detail))
    }

    async fn user(&self, token: &str) -> Result<UserInfo, Problem> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let status = ask(reviews, &review).await?.status.unwrap_or_default();
        match status.user {
            Some(user) if status.authenticated == Some(true) => Ok(user),
            _ => Err(unauthorized("the API server does not know this token")),
        }
    }

    async fn may_forward_ports(&self, user: UserInfo) -> Result<bool, Problem> {
        let attributes = ResourceAttributes {
            namespace: Some(self.namespace.clone()),
            verb: Some("create".to_owned()),
            resource: Some("pods".to_owned()),
            subresource: Some("portforward".to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            user: user.username,
            uid: user.uid,
            groups: user.groups,
            extra: user.extra,
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        Ok(ask(reviews, &review).await?.status.is_some_and(|status| status.allowed))
    }
}

async fn ask<K>(api: Api<K>, review: &K) -> Result<K, Problem>
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let silent = |why: String| {
        let detail =
            format!("the API server does not say who may tap: {why}; try again, or use `conduit tap`");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not known", detail)
    };
    match timeout(DEADLINE, api.create(&PostParams::default(), review)).await {
        Ok(Ok(review)) => Ok(review),
        Ok(Err(error)) => Err(silent(error.to_string())),
        Err(_) => Err(silent(format!("no answer within {DEADLINE:?}"))),
    }
}

/// The token of a header, if it is one of such.
fn bearer(authorization: &HeaderValue) -> Option<&str> {
    let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    let fits = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN;
    fits.then_some(token)
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "who are you", detail)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use conduit_cluster::{Access, Cluster, Config, User};
    use conduit_identity::{Clock as _, SystemClock};
    use conduit_runtime::Seed;

    use super::*;

    const NEIGHBOUR: &str = "10.1.2.3";

    fn cluster() -> Cluster {
        let clock = Arc::new(|| SystemClock.now().0);
        Cluster::new(Config::new(clock, Seed::fixed(7)))
    }

    async fn check(cluster: &Cluster, peer: &str, authorization: Option<&'static str>) -> Result<(), u16> {
        let header = authorization.map(HeaderValue::from_static);
        let authorizer = Authorizer::new(cluster.client(), "conduit".to_owned());
        authorizer.check(peer.parse().unwrap(), header.as_ref()).await.map_err(|problem| problem.status)
    }

    #[tokio::test]
    async fn who_came_by_port_forward_may() {
        for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(check(&cluster(), peer, None).await, Ok(()), "{peer}");
        }
    }

    #[tokio::test]
    async fn a_neighbour_needs_a_token_that_is_known() {
        let cluster = cluster();
        for authorization in [None, Some("Bearer "), Some("Basic abc"), Some("Bearer unknown")] {
            assert_eq!(check(&cluster, NEIGHBOUR, authorization).await, Err(401), "{authorization:?}");
        }
        cluster.reviews().accept_token("known", User { name: "ann".to_owned(), ..User::default() });
        assert_eq!(check(&cluster, NEIGHBOUR, Some("bearer known")).await, Ok(()));
    }

    #[tokio::test]
    async fn a_neighbour_without_the_right_to_forward_ports_may_not() {
        let cluster = cluster();
        cluster.reviews().accept_token("known", User { name: "ann".to_owned(), ..User::default() });
        let text = |text: &str| Some(text.to_owned());
        cluster.reviews().deny(Access {
            user: text("ann"),
            verb: text("create"),
            resource: text("pods"),
            namespace: text("conduit"),
            ..Access::default()
        });
        assert_eq!(check(&cluster, NEIGHBOUR, Some("Bearer known")).await, Err(403));
    }
}
