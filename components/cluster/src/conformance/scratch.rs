//! What cases are written with: a namespace, requests as they are on the wire, and checks.

use std::{collections::VecDeque, future::Future, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::Client;
use serde_json::{Value, json};

/// A version that was current when the cluster was made.
pub const ANCIENT_VERSION: &str = "1";

/// How long a case waits for what controllers do: a real one may take seconds.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long a request may take.
const REQUEST_DEADLINE: Duration = Duration::from_secs(20);

/// What the API did that a case does not allow.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failed(String);

impl From<kube::Error> for Failed {
    fn from(error: kube::Error) -> Self {
        Self(format!("the client failed: {error}"))
    }
}

impl Failed {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// One case's corner of a cluster.
#[derive(Clone)]
pub(super) struct Scratch {
    pub(super) client: Client,
    pub(super) namespace: String,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) body: Value,
}

/// A JSON merge patch.
pub(super) const MERGE: &str = "application/merge-patch+json";
/// A strategic merge patch.
pub(super) const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// A JSON patch.
pub(super) const JSON_PATCH: &str = "application/json-patch+json";
/// Server-side apply.
pub(super) const APPLY: &str = "application/apply-patch+yaml";

impl Scratch {
    pub(super) async fn make(client: Client, namespace: &str) -> Result<Self, Failed> {
        let scratch = Self { client, namespace: namespace.to_owned() };
        let body = json!({ "metadata": { "name": namespace } });
        scratch.send(Method::POST, "/api/v1/namespaces", Some(body)).await?.expect(201)?;
        // Pods need an account and old servers want a token for it, which come a moment later.
        scratch
            .eventually("the namespace takes pods", || async {
                let pod = idle_pod("probe", json!({}));
                Ok(scratch.post(&scratch.at("pods?dryRun=All"), pod).await?.code == 201)
            })
            .await?;
        Ok(scratch)
    }

    pub(super) async fn remove(&self) -> Result<(), Failed> {
        self.delete(&format!("/api/v1/nodes/{}", self.namespace), None).await?;
        self.delete(&format!("/api/v1/namespaces/{}", self.namespace), None).await?;
        Ok(())
    }

    /// Makes a node that nobody runs, called as the namespace is: without one a pod is no endpoint.
    pub(super) async fn node(&self) -> Result<(), Failed> {
        let body = json!({ "metadata": { "name": self.namespace }, "spec": { "unschedulable": true } });
        self.post("/api/v1/nodes", body).await?.expect(201).map(drop)
    }

    /// Removes a pod without giving it time.
    pub(super) async fn kill(&self, pod: &str) -> Result<(), Failed> {
        let options = json!({ "gracePeriodSeconds": 0 });
        self.delete(&self.at(&format!("pods/{pod}")), Some(options)).await?.expect(200).map(drop)
    }

    /// The path of something of the core group in the namespace: `pods/web`.
    pub(super) fn at(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    /// The path of something of another group in the namespace.
    pub(super) fn at_group(&self, group_version: &str, rest: &str) -> String {
        format!("/apis/{group_version}/namespaces/{}/{rest}", self.namespace)
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer, Failed> {
        self.send(Method::GET, path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Result<Answer, Failed> {
        self.send(Method::POST, path, Some(body)).await
    }

    pub(super) async fn put(&self, path: &str, body: Value) -> Result<Answer, Failed> {
        self.send(Method::PUT, path, Some(body)).await
    }

    pub(super) async fn patch(&self, kind: &str, path: &str, body: Value) -> Result<Answer, Failed> {
        self.exchange(Method::PATCH, path, kind, body.to_string()).await
    }

    pub(super) async fn delete(&self, path: &str, body: Option<Value>) -> Result<Answer, Failed> {
        self.send(Method::DELETE, path, body).await
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer, Failed> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.exchange(method, path, "application/json", body).await
    }

    /// One request and its whole answer.
    pub(super) async fn exchange(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: String,
    ) -> Result<Answer, Failed> {
        let what = format!("{method} {path}");
        let exchange = async {
            let response = self.client.send(request(method, path, content_type, body)?).await?;
            let code = response.status().as_u16();
            let bytes = response.into_body().collect().await?.to_bytes();
            let body = serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
            Ok(Answer { code, body })
        };
        let answered = tokio::time::timeout(REQUEST_DEADLINE, exchange).await;
        answered
            .unwrap_or_else(|_| Err(Failed::new(format!("{what} was not answered in {REQUEST_DEADLINE:?}"))))
    }

    /// Opens a watch.
    pub(super) async fn watch(&self, path: &str) -> Result<Watch, Failed> {
        let response =
            self.client.send(request(Method::GET, path, "application/json", String::new())?).await?;
        if response.status().as_u16() != 200 {
            return Err(Failed::new(format!("the watch {path} was refused with {}", response.status())));
        }
        let chunks = response.into_body().into_data_stream();
        let chunks = chunks.map(|chunk| chunk.map(|bytes| bytes.to_vec())).boxed();
        Ok(Watch { chunks, buffer: Vec::new(), events: VecDeque::new() })
    }

    /// Looks until `holds`, or fails saying that it never did.
    pub(super) async fn eventually<F, Fut>(&self, what: &str, holds: F) -> Result<(), Failed>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<bool, Failed>>,
    {
        let looking = async {
            while !holds().await? {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        };
        let seen = tokio::time::timeout(PATIENCE, looking).await;
        seen.unwrap_or_else(|_| Err(Failed::new(format!("never happened: {what}"))))
    }

    /// The minor version of the cluster.
    pub(super) async fn minor_version(&self) -> Result<u32, Failed> {
        let version = self.get("/version").await?.body;
        let minor = version["minor"].as_str().unwrap_or_default().trim_end_matches('+');
        minor.parse().map_err(|_| Failed::new(format!("no minor version in {version}")))
    }

    /// Creates a ConfigMap with nothing but a name and labels, and gives it.
    pub(super) async fn map(&self, name: &str, labels: Value) -> Result<Value, Failed> {
        let body = json!({ "metadata": { "name": name, "labels": labels } });
        Ok(self.post(&self.at("configmaps"), body).await?.expect(201)?.body)
    }

    /// Whether something is there.
    pub(super) async fn exists(&self, path: &str) -> Result<bool, Failed> {
        Ok(self.get(path).await?.code == 200)
    }
}

impl Answer {
    /// The answer, if it has this status.
    pub(super) fn expect(self, code: u16) -> Result<Self, Failed> {
        if self.code == code {
            return Ok(self);
        }
        Err(Failed::new(format!("expected {code}, got {}: {}", self.code, self.body)))
    }

    /// The answer, if it is a refusal with this status and reason.
    pub(super) fn refused(self, code: u16, reason: &str) -> Result<Self, Failed> {
        let answer = self.expect(code)?;
        same("kind of the refusal", &answer.body["kind"], "Status")?;
        same("status of the refusal", &answer.body["status"], "Failure")?;
        same("code of the refusal", &answer.body["code"], code)?;
        if answer.body["reason"].as_str().unwrap_or_default() == reason {
            return Ok(answer);
        }
        Err(Failed::new(format!("expected {reason}, got {}", answer.body)))
    }

    /// The answer, if it blames exactly these fields (each once).
    pub(super) fn blames(self, fields: &[&str]) -> Result<Self, Failed> {
        let causes = self.body["details"]["causes"].as_array().cloned().unwrap_or_default();
        let mut blamed: Vec<&str> = causes.iter().filter_map(|cause| cause["field"].as_str()).collect();
        blamed.dedup();
        if blamed == fields {
            return Ok(self);
        }
        Err(Failed::new(format!("expected {fields:?} to be blamed, got {}", self.body)))
    }

    pub(super) fn version(&self) -> String {
        version(&self.body)
    }
}

/// An open watch.
pub(super) struct Watch {
    chunks: BoxStream<'static, Result<Vec<u8>, kube::Error>>,
    buffer: Vec<u8>,
    events: VecDeque<Value>,
}

impl Watch {
    /// The next event, none when the watch has ended.
    pub(super) async fn next(&mut self) -> Result<Option<Value>, Failed> {
        let read = async {
            while self.events.is_empty() {
                let Some(chunk) = self.chunks.next().await else { return Ok(None) };
                self.take(&chunk?)?;
            }
            Ok(self.events.pop_front())
        };
        tokio::time::timeout(PATIENCE, read)
            .await
            .unwrap_or_else(|_| Err(Failed::new("a watch stayed silent")))
    }

    /// The next event, which must be of this type and about this name.
    pub(super) async fn expect(&mut self, kind: &str, name: &str) -> Result<Value, Failed> {
        let event =
            self.next().await?.ok_or_else(|| Failed::new(format!("the watch ended before {kind} {name}")))?;
        same("type of the event", &event["type"], kind)?;
        same("name in the event", &event["object"]["metadata"]["name"], name)?;
        Ok(event["object"].clone())
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), Failed> {
        self.buffer.extend_from_slice(chunk);
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let event = serde_json::from_slice(&line).map_err(|error| Failed::new(error.to_string()))?;
            self.events.push_back(event);
        }
        Ok(())
    }
}

fn request(
    method: Method,
    path: &str,
    content_type: &str,
    body: String,
) -> Result<Request<kube::client::Body>, Failed> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .header("accept", "application/json")
        .header("user-agent", "conformance/1")
        .body(kube::client::Body::from(body.into_bytes()))
        .map_err(|error| Failed::new(format!("{path}: {error}")))
}

pub(super) fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
}

pub(super) fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

/// The names of a list's items.
pub(super) fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

/// Fails unless `holds`.
pub(super) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(Failed::new(what())) }
}

/// Fails unless the two are equal.
pub(super) fn same(what: &str, actual: &Value, expected: impl Into<Value>) -> Result<(), Failed> {
    let expected = expected.into();
    ensure(*actual == expected, || format!("{what}: expected {expected}, got {actual}"))
}

/// A pod that no scheduler takes care of, with one container `app` that has the named port `http`, 8080.
pub(super) fn idle_pod(name: &str, labels: Value) -> Value {
    json!({
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "schedulerName": "nobody",
            "containers": [{
                "name": "app", "image": "example/app:1", "ports": [{ "name": "http", "containerPort": 8080 }],
            }],
        },
    })
}
