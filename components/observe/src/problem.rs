//! Errors of the HTTP API, as `application/problem+json` (RFC 9457): each names the parameter, its value and what to do.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use crate::{query::Invalid, sources::prometheus::AskError};

/// What went wrong, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// In a few words, the same for every problem of the kind.
    pub title: String,
    /// What it is about in this case, and what to do.
    pub detail: String,
    /// The parameter at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// The value it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl Problem {
    /// A problem that no parameter caused.
    pub fn new(status: StatusCode, title: &str, detail: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            title: title.to_owned(),
            detail: detail.into(),
            parameter: None,
            value: None,
        }
    }

    /// What was asked for is not there.
    pub fn not_found(parameter: &str, value: &str, detail: impl Into<String>) -> Self {
        Self {
            parameter: Some(parameter.to_owned()),
            value: Some(value.to_owned()),
            ..Self::new(StatusCode::NOT_FOUND, "not found", detail)
        }
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        let Invalid { parameter, value, remedy } = invalid;
        Self {
            parameter: Some(parameter.to_owned()),
            value: Some(value),
            ..Self::new(StatusCode::BAD_REQUEST, "a parameter cannot be used", remedy)
        }
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        let remedy = "the numbers come from there; see CONDUIT_OBSERVE_PROMETHEUS_URL, and without it they are \
                      read from the proxies";
        Self::new(StatusCode::BAD_GATEWAY, "the source of the numbers failed", format!("{error}; {remedy}"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A struct of strings and numbers always serializes.
        let mut response = Response::new(Body::from(serde_json::to_vec(&self).unwrap_or_default()));
        *response.status_mut() = status;
        let media_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        response
    }
}
