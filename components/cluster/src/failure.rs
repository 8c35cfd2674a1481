//! How a request fails: the `Status` object a client gets.

use serde::Serialize;
use serde_json::{Value, json};

use crate::resources::Resource;

/// A refused or failed request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{code} {reason}: {message}")]
pub(crate) struct Failure {
    /// The HTTP status.
    pub(crate) code: u16,
    /// The machine-readable reason, `NotFound`.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
    /// The `details` field, null when there is nothing to add.
    pub(crate) details: Value,
}

impl Failure {
    /// The body of the response.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status["code"] = self.code.into();
        status
    }

    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        self.details["retryAfterSeconds"].as_u64()
    }

    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    fn about(resource: &Resource, name: &str) -> Value {
        let mut details = json!({});
        if !name.is_empty() {
            details["name"] = name.into();
        }
        if !resource.group.is_empty() {
            details["group"] = resource.group.into();
        }
        details["kind"] = resource.plural.into();
        details
    }

    fn on(code: u16, reason: &'static str, resource: &Resource, name: &str, message: String) -> Self {
        Self { code, reason, message, details: Self::about(resource, name) }
    }

    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.qualified());
        Self::on(404, "NotFound", resource, name, message)
    }

    pub(crate) fn no_such_path() -> Self {
        let mut failure = Self::new(404, "NotFound", "the server could not find the requested resource");
        failure.details = json!({});
        failure
    }

    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.qualified());
        Self::on(409, "AlreadyExists", resource, name, message)
    }

    pub(crate) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified());
        Self::on(409, "Conflict", resource, name, message)
    }

    /// A deletion was to happen only to another version of the object, or another object of its name.
    pub(crate) fn precondition(resource: &Resource, name: &str, why: &str) -> Self {
        let mut failure = Self::conflict(resource, name, why);
        failure.message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.kind);
        failure.details["kind"] = resource.kind.into();
        failure
    }

    pub(crate) fn modified(resource: &Resource, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// Another manager owns what this one wants to apply.
    pub(crate) fn apply_conflict(causes: Vec<Value>) -> Self {
        let what: Vec<_> = causes
            .iter()
            .filter_map(|cause| Some(format!("{}: {}", cause["message"].as_str()?, cause["field"].as_str()?)))
            .collect();
        let plural = if what.len() == 1 { "" } else { "s" };
        let message = format!("Apply failed with {} conflict{plural}: {}", what.len(), what.join("; "));
        Self { code: 409, reason: "Conflict", message, details: json!({ "causes": causes }) }
    }

    pub(crate) fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", resource.qualified());
        Self::on(403, "Forbidden", resource, name, message)
    }

    pub(crate) fn namespace_terminating(resource: &Resource, name: &str, namespace: &str) -> Self {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut failure = Self::forbidden(resource, name, &why);
        failure.details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
        failure
    }

    /// One or more fields hold what they must not.
    pub(crate) fn invalid(resource: &Resource, name: &str, causes: &[Cause]) -> Self {
        let all: Vec<_> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let what = if all.len() == 1 { all.concat() } else { format!("[{}]", all.join(", ")) };
        let kind = if resource.group.is_empty() {
            resource.kind.to_owned()
        } else {
            format!("{}.{}", resource.kind, resource.group)
        };
        let mut details = Self::about(resource, name);
        details["kind"] = resource.kind.into();
        details["causes"] = causes
            .iter()
            .map(|cause| json!({ "reason": cause.reason, "message": cause.message, "field": cause.field }))
            .collect();
        let message = format!("{kind} \"{name}\" is invalid: {what}");
        Self { code: 422, reason: "Invalid", message, details }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// What is said when a client breaks a rule that the server does not check before storing.
    pub(crate) fn unclassified(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// The options of a request hold what they must not.
    pub(crate) fn invalid_options(kind: &str, cause: Cause) -> Self {
        let Cause { reason, field, message } = cause;
        Self {
            code: 422,
            reason: "Invalid",
            message: format!("{kind}.meta.k8s.io \"\" is invalid: {field}: {message}"),
            details: json!({
                "group": "meta.k8s.io", "kind": kind,
                "causes": [{ "reason": reason, "message": message, "field": field }],
            }),
        }
    }

    /// A patch that cannot be applied to what is there.
    pub(crate) fn unprocessable() -> Self {
        let mut failure =
            Self::new(422, "Invalid", "the server rejected our request due to an error in our request");
        failure.details = json!({});
        failure
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", message)
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        let mut failure = Self::new(405, "MethodNotAllowed", message);
        failure.details = json!({});
        failure
    }

    pub(crate) fn unsupported_media(supported: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {supported}"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// The caller knows a version that is not there yet.
    pub(crate) fn future_version(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        Self {
            code: 504,
            reason: "Timeout",
            message: format!("Timeout: {message}"),
            details: json!({
                "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }],
                "retryAfterSeconds": 1,
            }),
        }
    }

    pub(crate) fn too_many_requests(message: &str) -> Self {
        let mut failure = Self::new(429, "TooManyRequests", message);
        failure.details = json!({ "retryAfterSeconds": 1 });
        failure
    }

    /// What a scripted fault answers.
    pub(crate) fn scripted(code: u16, retry_after_seconds: Option<u64>) -> Self {
        let (reason, message) = match code {
            401 => ("Unauthorized", "Unauthorized"),
            403 => ("Forbidden", "forbidden by a scripted fault"),
            404 => ("NotFound", "not found by a scripted fault"),
            409 => {
                ("Conflict", "the object has been modified; please apply your changes to the latest version")
            }
            410 => ("Expired", "The resourceVersion for the provided watch is too old."),
            429 => (
                "TooManyRequests",
                "the server has received too many requests and has asked us to try again later",
            ),
            500 => ("InternalError", "an internal error by a scripted fault"),
            503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
            504 => ("Timeout", "the request timed out"),
            _ => ("Unknown", "a scripted fault"),
        };
        let mut failure = Self::new(code, reason, message);
        if let Some(seconds) = retry_after_seconds {
            failure.details = json!({ "retryAfterSeconds": seconds });
        }
        failure
    }
}

/// Why one field is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) reason: &'static str,
    pub(crate) field: String,
    pub(crate) message: String,
}

impl Cause {
    pub(crate) fn invalid(field: impl Into<String>, value: impl Serialize, why: &str) -> Self {
        let message = format!("Invalid value: {}: {why}", serde_json::to_string(&value).unwrap_or_default());
        Self { reason: "FieldValueInvalid", field: field.into(), message }
    }

    pub(crate) fn required(field: impl Into<String>, why: &str) -> Self {
        let message =
            if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Self { reason: "FieldValueRequired", field: field.into(), message }
    }

    pub(crate) fn unsupported(field: impl Into<String>, value: &str, supported: &str) -> Self {
        let message = format!("Unsupported value: {value:?}: supported values: {supported}");
        Self { reason: "FieldValueNotSupported", field: field.into(), message }
    }

    pub(crate) fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {why}") }
    }
}
