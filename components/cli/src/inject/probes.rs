//! The `tcpSocket` probes of an application. Through the redirect they would always succeed, since the proxy accepts
//! whatever the application does; so the kubelet is told to ask the proxy, which looks at the port.
//!
//! The proxy must not be asked before it runs: probes of init containers, which Kubernetes waits for before it starts the
//! next one, stay as they are.

use std::collections::BTreeSet;

use conduit_proxy::probe::TcpProbe;
use serde_json::{Value, json};

use super::{
    Options,
    graft::pointer,
    prune::Replaced,
    swap::{self, Swap},
};

/// The probes that a container may have.
const KINDS: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
/// How a probe asks, of which it may have one.
const HANDLERS: [&str; 4] = ["exec", "grpc", "httpGet", "tcpSocket"];
const TCP: &str = "tcpSocket";
const HTTP: &str = "httpGet";

/// Where the containers are in a pod template.
pub(super) const CONTAINERS: &str = "/spec/containers";
const INIT_CONTAINERS: &str = "/spec/initContainers";

/// What the proxy is told of the probes of a pod template.
pub(super) fn told(template: &Value, options: &Options) -> BTreeSet<TcpProbe> {
    redirected(template, CONTAINERS, options).into_iter().map(|(_, _, probe)| probe).collect()
}

/// The probes of a pod template that go to the proxy.
pub(super) fn asked_of_the_proxy(template: &Value, options: &Options) -> Vec<Swap> {
    let swap = |(item, within, probe): (&str, &'static str, TcpProbe)| Swap {
        item: item.to_owned(),
        within,
        from: TCP,
        to: HTTP,
        value: json!({"path": probe.path(), "port": options.flags.metrics_port}),
        text: None,
    };
    redirected(template, CONTAINERS, options).into_iter().map(swap).collect()
}

/// The way back, of a pod template in which that was done and what was replaced recorded. Where the record was lost, the
/// path still tells the port.
pub(super) fn asked_of_the_application(template: &Value, replaced: &Replaced) -> Vec<Swap> {
    let back = |(item, within, probe): (&str, &'static str, &Value)| {
        let asked = TcpProbe::of_path(probe.pointer("/httpGet/path")?.as_str()?)?;
        let at = pointer(&pointer(&pointer(CONTAINERS, item), within), HTTP);
        let text = replaced.get(&at).cloned();
        let value = text.as_deref().and_then(|text| swap::entry(TCP, text));
        let value = value.unwrap_or_else(|| json!({"port": asked.port}));
        Some(Swap { item: item.to_owned(), within, from: HTTP, to: TCP, value, text })
    };
    probes(template, CONTAINERS).filter_map(back).collect()
}

/// Init containers with probes that tell nothing.
pub(super) fn warning(template: &Value, options: &Options) -> Option<String> {
    let names: BTreeSet<&str> =
        redirected(template, INIT_CONTAINERS, options).into_iter().map(|(name, _, _)| name).collect();
    let names = names.into_iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| {
        format!("the tcpSocket probes of its init containers succeed whatever these do, since the proxy accepts: {names}")
    })
}

/// The probes of these containers that would reach the proxy, with the container's name.
fn redirected<'t>(
    template: &'t Value,
    containers: &str,
    options: &Options,
) -> Vec<(&'t str, &'static str, TcpProbe)> {
    let flags = &options.flags;
    let is_left_alone = |port: u16| {
        flags.skip_inbound_ports.contains(&port) || [flags.control_port, flags.metrics_port].contains(&port)
    };
    let found = probes(template, containers).filter_map(|(name, kind, probe)| {
        let tcp = probe.get(TCP)?;
        let others = HANDLERS.iter().filter(|handler| probe.get(handler).is_some()).count() > 1;
        // A probe of another host does not come to this pod.
        let elsewhere = tcp.get("host").and_then(Value::as_str).is_some_and(|host| !host.is_empty());
        let port = port(container(template, containers, name)?, tcp.get("port")?)?;
        let timeout_s = timeout_s(probe.get("timeoutSeconds"))?;
        (!others && !elsewhere && !is_left_alone(port)).then_some((name, kind, TcpProbe { port, timeout_s }))
    });
    found.collect()
}

/// Every probe of these containers, with its container's name.
fn probes<'t>(
    template: &'t Value,
    containers: &str,
) -> impl Iterator<Item = (&'t str, &'static str, &'t Value)> {
    let containers = template.pointer(containers).and_then(Value::as_array).into_iter().flatten();
    containers.filter_map(|container| Some((container.get("name")?.as_str()?, container))).flat_map(
        |(name, container)| KINDS.iter().filter_map(move |kind| Some((name, *kind, container.get(kind)?))),
    )
}

fn container<'t>(template: &'t Value, containers: &str, name: &str) -> Option<&'t Value> {
    let mut containers = template.pointer(containers)?.as_array()?.iter();
    containers.find(|container| container.get("name").and_then(Value::as_str) == Some(name))
}

/// As the kubelet finds it: a number, or the name of one of the container's ports, or a number that is written as a text.
fn port(container: &Value, port: &Value) -> Option<u16> {
    let number =
        |port: &Value| port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let Some(name) = port.as_str() else { return number(port) };
    let ports = container.get("ports").and_then(Value::as_array).into_iter().flatten();
    let mut named = ports.filter(|port| port.get("name").and_then(Value::as_str) == Some(name));
    match named.next() {
        Some(port) => number(port.get("containerPort")?),
        None => name.parse().ok().filter(|port| *port > 0),
    }
}

/// Of which Kubernetes makes 1 where there is none, or nothing.
fn timeout_s(timeout: Option<&Value>) -> Option<u32> {
    match timeout {
        None | Some(Value::Null) => Some(1),
        Some(timeout) => {
            timeout.as_u64().and_then(|timeout| u32::try_from(timeout).ok()).map(|timeout| timeout.max(1))
        }
    }
}
