//! Tables that several pages show.

use maud::{Markup, html};

use super::{
    graph::Lock,
    page::{Root, lock, milliseconds, percent, rate},
    reason,
};
use crate::{inventory::Pod, kind::Kind, row::Row};

/// Rows as `conduit stat` has them.
pub(super) fn rows(root: Root, caption: &str, rows: &[Row]) -> Markup {
    html! {
        div.panel.scroll tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { (caption) }
                thead {
                    tr {
                        @for name in ["Namespace", "Name"] { th scope="col" { (name) } }
                        @for name in ["Meshed", "Success", "RPS", "P50", "P95", "P99"] { th.number scope="col" { (name) } }
                        th scope="col" { "TLS" }
                        th scope="col" { "In the clear, because" }
                    }
                }
                tbody {
                    @for row in rows { (stat(root, row)) }
                    @if rows.is_empty() { tr { td.quiet colspan="10" { "nothing here" } } }
                }
            }
        }
    }
}

fn stat(root: Root, row: &Row) -> Markup {
    let meshed = row.meshed.zip(row.running).map(|(meshed, running)| format!("{meshed}/{running}"));
    html! {
        tr data-name=(row.name) {
            td { (row.namespace) }
            th scope="row" { (name(root, row)) }
            td.number { (meshed.as_deref().unwrap_or("-")) }
            td.number { (percent(row.success)) }
            td.number { (rate(row.rps)) }
            @for ms in [row.latency_ms.p50, row.latency_ms.p95, row.latency_ms.p99] { td.number { (milliseconds(ms)) } }
            td { (share(row.tls)) }
            td.long { (reason::list(&row.plaintext)) }
        }
    }
}

/// A share of TLS with its padlock; neither without traffic.
pub(super) fn share(tls: Option<f64>) -> Markup {
    match tls {
        Some(tls) => lock(Lock::of(tls), &percent(Some(tls))),
        None => html! { span.quiet { "-" } },
    }
}

fn name(root: Root, row: &Row) -> Markup {
    let Row { kind, namespace, name, .. } = row;
    let path = match kind {
        Kind::Authority | Kind::Service => return html! { (name) },
        Kind::Namespace => format!("namespaces/{name}"),
        Kind::Pod => format!("pods/{namespace}/{name}"),
        kind => format!("workloads/{namespace}/{}/{name}", kind.as_str()),
    };
    html! { a href=(root.to(&path)) { (name) } }
}

/// Pods, with what is known of each without asking it.
pub(super) fn pods<'a>(root: Root, pods: impl IntoIterator<Item = &'a Pod>) -> Markup {
    html! {
        div.panel.scroll tabindex="0" role="region" aria-label="Pods" {
            table {
                thead {
                    tr { @for name in ["Pod", "Status", "Address", "Proxy"] { th scope="col" { (name) } } }
                }
                tbody {
                    @for pod in pods {
                        tr {
                            th scope="row" {
                                a href=(root.to(&format!("pods/{}/{}", pod.name.namespace, pod.name.name))) { (pod.name.name) }
                            }
                            td { (pod.status) }
                            td { (pod.ip.map_or_else(|| "-".to_owned(), |ip| ip.to_string())) }
                            td { (proxy(pod)) }
                        }
                    }
                }
            }
        }
    }
}

/// Whether and how a pod was injected.
pub(super) fn proxy(pod: &Pod) -> &'static str {
    match (pod.meshed, pod.tls) {
        (true, true) => "with TLS",
        (true, false) => "TLS disabled",
        (false, _) => "none",
    }
}
