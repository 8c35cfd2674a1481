//! What every page has: head, navigation, the command that tells the same on a command line.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};

use super::graph::Lock;
use crate::problem::Problem;

/// Nothing from elsewhere, nothing inline, and in no other page's frame.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Where the root of the dashboard is, seen from a page: all links are relative, so that it works below any prefix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root(pub(super) usize);

impl Root {
    /// A link to `path`, whose parts are names of Kubernetes objects: nothing in them needs escaping.
    pub(super) fn to(self, path: &str) -> String {
        let up = "../".repeat(self.0);
        match (up.as_str(), path) {
            ("", "") => "./".to_owned(),
            _ => format!("{up}{path}"),
        }
    }
}

/// Which part of the navigation a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Mesh,
    ControlPlane,
}

/// One page.
pub(super) struct Page {
    pub(super) root: Root,
    pub(super) part: Part,
    pub(super) title: String,
    /// Names of what it is within, each with where it leads.
    pub(super) crumbs: Vec<(String, String)>,
    /// What shows the same on a command line.
    pub(super) command: Option<String>,
    pub(super) body: Markup,
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        (HEADERS, axum::response::Html(self.render().into_string())).into_response()
    }
}

impl Page {
    fn render(&self) -> Markup {
        let Self { root, title, crumbs, command, body, .. } = self;
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (title) " · Conduit" }
                    link rel="stylesheet" href=(root.to("assets/style.css"));
                    link rel="icon" type="image/svg+xml" href=(root.to("assets/icon.svg"));
                    script defer src=(root.to("assets/live.js")) {}
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    header {
                        a.brand href=(root.to("")) { svg.locked viewBox="0 0 14 16" aria-hidden="true" { (Lock::Locked.icon()) } "Conduit" }
                        nav aria-label="Parts" {
                            (self.entry(Part::Mesh, "", "Mesh"))
                            (self.entry(Part::ControlPlane, "control-plane", "Control plane"))
                        }
                        span.state #state role="status" { "live" }
                    }
                    main #main {
                        @if !crumbs.is_empty() {
                            nav.crumbs aria-label="Within" {
                                @for (name, href) in crumbs { a href=(href) { (name) } " / " }
                            }
                        }
                        h1 { (title) }
                        @if let Some(command) = command { div { code.command { (command) } } }
                        (body)
                    }
                }
            }
        }
    }

    fn entry(&self, part: Part, path: &str, name: &str) -> Markup {
        let current = (self.part == part).then_some("page");
        html! { a href=(self.root.to(path)) aria-current=[current] { (name) } }
    }
}

/// A page that cannot be shown.
pub(super) struct Trouble {
    pub(super) root: Root,
    pub(super) problem: Problem,
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let page = Page {
            root: self.root,
            part: Part::Mesh,
            title: self.problem.title,
            crumbs: vec![("Mesh".to_owned(), self.root.to(""))],
            command: None,
            body: html! { p #trouble data-live { (self.problem.detail) } },
        };
        (status, page).into_response()
    }
}

/// A padlock with words.
pub(super) fn lock(lock: Lock, words: &str) -> Markup {
    html! {
        span class=(format!("lock-text {}", lock.name())) {
            svg viewBox="0 0 14 16" aria-hidden="true" { (lock.icon()) }
            (words)
        }
    }
}

/// A share as a percentage; `-` without traffic. What is not all is never shown as all, nor what is not nothing as nothing.
pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or_else(
        || "-".to_owned(),
        |share| {
            let shown = if share < 1.0 { (share * 100.0).min(99.99) } else { 100.0 };
            let shown = if share > 0.0 { shown.max(0.01) } else { 0.0 };
            format!("{shown:.2}%")
        },
    )
}

/// A rate per second.
pub(super) fn rate(rps: Option<f64>) -> String {
    rps.map_or_else(|| "-".to_owned(), |rps| format!("{rps:.1}"))
}

/// A latency in milliseconds.
pub(super) fn milliseconds(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative_at_every_depth() {
        assert_eq!(Root(0).to(""), "./");
        assert_eq!(Root(0).to("control-plane"), "control-plane");
        assert_eq!(Root(2).to(""), "../../");
        assert_eq!(Root(2).to("assets/style.css"), "../../assets/style.css");
    }

    #[test]
    fn a_share_is_all_or_nothing_only_when_it_is() {
        let shown = [None, Some(0.0), Some(0.000_01), Some(0.5), Some(0.999_999), Some(1.0)].map(percent);
        assert_eq!(shown, ["-", "0.00%", "0.01%", "50.00%", "99.99%", "100.00%"]);
    }
}
