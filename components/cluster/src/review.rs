//! Reviews: who does a token belong to, and may somebody do something. The answers are told by whoever sets up the
//! cluster; tokens it issued itself it knows.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    Shared,
    failure::Failure,
    meta::{timestamp, uid},
    object::{Key, Object, child_mut, text},
};

/// Answers to reviews. Until told otherwise no token is known and everything is allowed.
#[derive(Debug, Default)]
pub struct Reviews(Mutex<Answers>);

#[derive(Debug, Default)]
struct Answers {
    tokens: BTreeMap<String, User>,
    denied: Vec<Access>,
}

/// Who somebody is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// `system:serviceaccount:conduit:ca`
    pub name: String,
    /// The uid of the account, or empty.
    pub uid: String,
    /// `system:serviceaccounts`, ...
    pub groups: Vec<String>,
}

/// What somebody might do; what is not said does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Who; never matches a self review, which has no name.
    pub user: Option<String>,
    /// `list`, `watch`, ...
    pub verb: Option<String>,
    /// The API group, empty for the core one.
    pub group: Option<String>,
    /// The plural: `secrets`.
    pub resource: Option<String>,
    /// The namespace.
    pub namespace: Option<String>,
}

/// How long an issued token says it lasts; the API refuses less than ten minutes and gives an hour by default.
const TOKEN_SECONDS: i64 = 3600;
/// Tokens known at a time, the ones with the smallest text being forgotten first.
const TOKENS: usize = 4096;

impl Reviews {
    /// Makes a token known.
    pub fn accept_token(&self, token: &str, user: User) {
        let mut answers = self.0.lock();
        while answers.tokens.len() >= TOKENS {
            answers.tokens.pop_first();
        }
        answers.tokens.insert(token.to_owned(), user);
    }

    /// Makes a token unknown again.
    pub fn revoke_token(&self, token: &str) {
        self.0.lock().tokens.remove(token);
    }

    /// Denies what `access` describes, from now on.
    pub fn deny(&self, access: Access) {
        self.0.lock().denied.push(access);
    }

    /// Allows everything again.
    pub fn allow_all(&self) {
        self.0.lock().denied.clear();
    }

    /// Fills in the status of a review.
    pub(crate) fn answer(&self, kind: &str, namespace: &str, mut review: Value) -> Result<Value, Failure> {
        if !review.is_object() {
            return Err(Failure::bad_request("the object provided is not a JSON object"));
        }
        let status = match kind {
            "TokenReview" => self.token_status(text(&review, "/spec/token"))?,
            _ => self.access_status(namespace, &review["spec"]),
        };
        let group = if kind == "TokenReview" { "authentication" } else { "authorization" };
        review["apiVersion"] = format!("{group}.k8s.io/v1").into();
        review["kind"] = kind.into();
        child_mut(&mut review, "metadata").entry("creationTimestamp").or_insert(Value::Null);
        review["status"] = status;
        Ok(review)
    }

    fn token_status(&self, token: &str) -> Result<Value, Failure> {
        if token.is_empty() {
            return Err(Failure::bad_request("token is required for TokenReview in authentication"));
        }
        let answers = self.0.lock();
        let Some(user) = answers.tokens.get(token) else {
            return Ok(json!({ "user": {}, "error": "invalid bearer token" }));
        };
        Ok(json!({
            "authenticated": true,
            "user": { "username": user.name, "uid": user.uid, "groups": user.groups },
        }))
    }

    fn access_status(&self, namespace: &str, spec: &Value) -> Value {
        let asked = &spec["resourceAttributes"];
        let namespace = if namespace.is_empty() { text(asked, "/namespace") } else { namespace };
        let denied = self.0.lock().denied.iter().any(|access| {
            let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
            same(&access.user, text(spec, "/user"))
                && same(&access.verb, text(asked, "/verb"))
                && same(&access.group, text(asked, "/group"))
                && same(&access.resource, text(asked, "/resource"))
                && same(&access.namespace, namespace)
        });
        if denied {
            json!({ "allowed": false, "reason": "denied by the cluster's script" })
        } else {
            json!({ "allowed": true })
        }
    }
}

/// Issues a token for a service account.
pub(crate) fn issue_token(shared: &Shared, account: &Object, mut request: Value) -> Result<Value, Failure> {
    if !request.is_object() {
        return Err(Failure::bad_request("the object provided is not a JSON object"));
    }
    let key: Key = account.key();
    let (namespace, name) = (key.namespace(), key.name());
    let (token, now) = {
        let mut state = shared.state.lock();
        let writer = state.writer(shared);
        (format!("{namespace}.{name}.{}", uid(writer.ids)), writer.now)
    };
    let user = User {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        uid: account.uid().to_owned(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ],
    };
    shared.reviews.accept_token(&token, user);
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(TOKEN_SECONDS);
    let expires = timestamp(now.saturating_add(seconds));
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["kind"] = "TokenRequest".into();
    request["metadata"]["creationTimestamp"] = Value::Null;
    request["spec"]["expirationSeconds"] = seconds.into();
    if request["spec"]["audiences"].is_null() {
        request["spec"]["audiences"] = json!(["https://kubernetes.default.svc"]);
    }
    request["status"] = json!({ "token": token, "expirationTimestamp": expires });
    Ok(request)
}
