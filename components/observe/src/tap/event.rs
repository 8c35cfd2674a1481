//! What tap tells, as JSON carries it: written by the API, read by the CLI and the browser.

use std::collections::BTreeMap;

use conduit_proto::tap::{self as proto, event as kinds};
use serde::{Deserialize, Serialize};

use crate::samples::PodName;

/// Something that happened to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapEvent {
    /// The same for all events of one request, as `<proxy>:<request>`; unique within one tap.
    pub id: String,
    /// The namespace of the pod whose proxy tells.
    pub namespace: String,
    /// That pod.
    pub pod: String,
    /// Which way the request crosses that pod's border.
    pub direction: Direction,
    /// `ip:port` of the client.
    pub source: String,
    /// What is known of the client, and of the connection it came by.
    pub source_labels: BTreeMap<String, String>,
    /// `ip:port` of the server.
    pub destination: String,
    /// What is known of the server, and of the connection to it.
    pub destination_labels: BTreeMap<String, String>,
    /// The `tls` label of the connection that carried it between pods, as in the metrics.
    pub tls: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// Which way a request crosses a pod's border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the pod's application.
    Inbound,
    /// From the pod's application.
    Outbound,
    /// The proxy did not say.
    Unknown,
}

/// What happened to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum What {
    /// It began.
    Request {
        /// As the client wrote it, registered or not.
        method: String,
        /// `http` or `https`.
        scheme: String,
        /// What the client named as the server.
        authority: String,
        /// Without the query, which is where applications put secrets.
        path: String,
    },
    /// The head of its response arrived.
    Response {
        /// The HTTP status.
        status: u32,
        /// Since the request began, in nanoseconds.
        latency_ns: u64,
    },
    /// It ended.
    End {
        /// Since the request began, in nanoseconds.
        duration_ns: u64,
        /// Since the head of the response arrived, in nanoseconds.
        since_response_ns: u64,
        /// Octets of the response's body.
        response_bytes: u64,
        /// The gRPC status, when it was a gRPC call.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grpc_status: Option<u32>,
        /// HTTP/2's error code, when the stream was reset.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reset_error: Option<u32>,
    },
    /// A newer proxy told something that this version does not know.
    Unknown,
}

impl TapEvent {
    /// The event that the proxy of `pod`, the `proxy`-th of its tap, told.
    pub(crate) fn of(pod: &PodName, proxy: usize, event: proto::Event) -> Self {
        let direction = match event.direction() {
            kinds::Direction::Inbound => Direction::Inbound,
            kinds::Direction::Outbound => Direction::Outbound,
            kinds::Direction::Unknown => Direction::Unknown,
        };
        Self {
            id: format!("{proxy}:{}", event.id),
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            direction,
            source: event.source,
            source_labels: event.source_labels,
            destination: event.destination,
            destination_labels: event.destination_labels,
            tls: event.tls,
            what: event.event.map_or(What::Unknown, What::of),
        }
    }
}

impl What {
    fn of(event: kinds::Event) -> Self {
        match event {
            kinds::Event::RequestInit(kinds::RequestInit { method, scheme, authority, path }) => {
                Self::Request { method, scheme, authority, path }
            }
            kinds::Event::ResponseInit(response) => {
                Self::Response { status: response.http_status, latency_ns: response.since_request_init_ns }
            }
            kinds::Event::ResponseEnd(end) => Self::End {
                duration_ns: end.since_request_init_ns,
                since_response_ns: end.since_response_init_ns,
                response_bytes: end.response_bytes,
                grpc_status: match end.eos {
                    Some(kinds::response_end::Eos::GrpcStatusCode(code)) => Some(code),
                    _ => None,
                },
                reset_error: match end.eos {
                    Some(kinds::response_end::Eos::ResetErrorCode(code)) => Some(code),
                    _ => None,
                },
            },
        }
    }
}

/// A pod that a tap misses, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodError {
    /// Its namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// What is wrong, and what to do.
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_keeps_everything_the_proxy_said() {
        let end = kinds::ResponseEnd {
            since_request_init_ns: 2_500_000_000,
            since_response_init_ns: 7,
            response_bytes: 11,
            eos: Some(kinds::response_end::Eos::GrpcStatusCode(13)),
        };
        let event = proto::Event {
            source: "[fd00::1]:1".into(),
            destination: "10.0.0.2:80".into(),
            direction: kinds::Direction::Outbound.into(),
            tls: "true".into(),
            id: 9,
            event: Some(kinds::Event::ResponseEnd(end)),
            destination_labels: [("pod".to_owned(), "web-1".to_owned())].into(),
            ..proto::Event::default()
        };
        let event = TapEvent::of(&PodName::new("shop", "bot-1"), 2, event);
        insta::assert_json_snapshot!(event, @r#"
        {
          "id": "2:9",
          "namespace": "shop",
          "pod": "bot-1",
          "direction": "outbound",
          "source": "[fd00::1]:1",
          "source_labels": {},
          "destination": "10.0.0.2:80",
          "destination_labels": {
            "pod": "web-1"
          },
          "tls": "true",
          "event": "end",
          "duration_ns": 2500000000,
          "since_response_ns": 7,
          "response_bytes": 11,
          "grpc_status": 13
        }
        "#);
        let read: TapEvent = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
        assert_eq!(read, event);
    }
}
