//! Edges, as a drawing and as a table that the drawing leads to.

use std::time::Duration;

use maud::{Markup, html};

use super::{
    graph::{self, Link, Lock, Node},
    page::{Root, lock, percent, rate},
    reason,
};
use crate::{
    edges::{Edge, End},
    kind::Kind,
};

/// Ends that fit into a drawing which still says something.
const MAX_NODES: usize = 60;

/// The drawing, with what its signs mean.
pub(super) fn drawing(root: Root, edges: &[Edge]) -> Markup {
    let mut ends: Vec<&End> = Vec::new();
    let links: Vec<Link> = edges
        .iter()
        .map(|edge| Link {
            from: place(&mut ends, &edge.client),
            to: place(&mut ends, &edge.server),
            tls: edge.tls,
            about: about(edge),
            href: format!("#{}", anchor(edge)),
        })
        .collect();
    if ends.is_empty() {
        return html! { p.empty { "Nothing has crossed between pods within the last minute." } };
    }
    if ends.len() > MAX_NODES {
        return html! { p.empty { (ends.len()) " ends are too many for a drawing: see the table, or one namespace." } };
    }
    let nodes: Vec<Node> = ends.iter().map(|end| node(root, end)).collect();
    html! {
        div.scroll tabindex="0" role="region" aria-label="The mesh as a graph" { (graph::draw(&nodes, &links)) }
        div.legend {
            @for (state, words) in
                [(Lock::Locked, "encrypted"), (Lock::Mixed, "partly encrypted"), (Lock::Open, "in the clear")] {
                (lock(state, words))
            }
            span.quiet { "A dashed frame: no proxy. Hover over a lock, or follow it, for the reason." }
        }
    }
}

fn place<'a>(ends: &mut Vec<&'a End>, end: &'a End) -> usize {
    let same =
        |known: &&End| (known.kind, &known.namespace, &known.name) == (end.kind, &end.namespace, &end.name);
    ends.iter().position(same).unwrap_or_else(|| {
        ends.push(end);
        ends.len() - 1
    })
}

fn node(root: Root, end: &End) -> Node {
    let note = match (end.kind, end.name.is_empty()) {
        (None, true) => "in the clear".to_owned(),
        (None, false) => "outside the mesh".to_owned(),
        (Some(kind), _) => format!("{} in {}", kind.as_str(), end.namespace),
    };
    Node { name: title(end), note, is_meshed: end.meshed, href: href(root, end) }
}

/// What an end is called.
fn title(end: &End) -> String {
    if end.name.is_empty() { "unknown clients".to_owned() } else { end.name.clone() }
}

fn href(root: Root, end: &End) -> Option<String> {
    let End { kind, namespace, name, .. } = end;
    match kind.as_ref()? {
        Kind::Pod => Some(root.to(&format!("pods/{namespace}/{name}"))),
        Kind::Service | Kind::Authority | Kind::Namespace => None,
        kind => Some(root.to(&format!("workloads/{namespace}/{}/{name}", kind.as_str()))),
    }
}

fn anchor(edge: &Edge) -> String {
    let end = |end: &End| format!("{}.{}.{}", end.kind.map_or("", Kind::as_str), end.namespace, end.name);
    // Names of what is outside are whatever a client said.
    let part = |text: String| text.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-', "_");
    format!("edge-{}-to-{}", part(end(&edge.client)), part(end(&edge.server)))
}

fn about(edge: &Edge) -> String {
    match (Lock::of(edge.tls), reason::first(&edge.plaintext)) {
        (Lock::Locked, _) | (_, None) => "encrypted".to_owned(),
        (Lock::Mixed, Some(why)) => format!("{} encrypted, and the rest not: {why}", percent(Some(edge.tls))),
        (Lock::Open, Some(why)) => format!("in the clear: {why}"),
    }
}

/// The table.
pub(super) fn table(root: Root, edges: &[Edge]) -> Markup {
    html! {
        div.panel.scroll tabindex="0" role="region" aria-label="Connections" {
            table {
                caption { "Who talks to whom, within the last minute" }
                thead {
                    tr {
                        @for name in ["Client", "Server", "Encrypted"] { th scope="col" { (name) } }
                        th.number scope="col" { "RPS" }
                        @for name in ["Since", "Proven identities, or the reason"] { th scope="col" { (name) } }
                    }
                }
                tbody {
                    @for edge in edges { (row(root, edge)) }
                    @if edges.is_empty() { tr { td.quiet colspan="6" { "nothing has crossed" } } }
                }
            }
        }
    }
}

fn row(root: Root, edge: &Edge) -> Markup {
    html! {
        tr id=(anchor(edge)) data-client=(title(&edge.client)) data-server=(title(&edge.server)) {
            th scope="row" { (end(root, &edge.client)) }
            td { (end(root, &edge.server)) }
            td { (lock(Lock::of(edge.tls), &percent(Some(edge.tls)))) }
            td.number { (rate(edge.rps)) }
            td { (since(edge.since_ms)) }
            td.long {
                @if edge.tls > 0.0 {
                    @for (name, identity) in [("client", &edge.client.identity), ("server", &edge.server.identity)] {
                        @if let Some(identity) = identity { div { span.quiet { (name) ": " } code title=(identity) { (short(identity)) } } }
                    }
                }
                (reason::list(&edge.plaintext))
            }
        }
    }
}

fn end(root: Root, end: &End) -> Markup {
    let title = title(end);
    html! {
        @match href(root, end) {
            Some(href) => a href=(href) { (title) },
            None => (title),
        }
        @if !end.namespace.is_empty() { span.quiet { " in " (end.namespace) } }
    }
}

/// An identity without the part that all of one mesh share.
fn short(identity: &str) -> &str {
    identity.split_once(".conduit-managed.").map_or(identity, |(workload, _)| workload)
}

fn since(ms: Option<u64>) -> String {
    let Some(ms) = ms else { return "-".to_owned() };
    let seconds = Duration::from_millis(ms).as_secs();
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
}
