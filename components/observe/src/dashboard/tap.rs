//! Live requests, started by whoever wants to see them: each tap costs the tapped pods a little.

use maud::{Markup, html};

/// A section that taps what `query` says, in the words of `/api/v1/tap`.
pub(super) fn section(url: &str, command: &str) -> Markup {
    html! {
        h2 #tap-title { "Live requests" }
        section data-tap=(url) aria-labelledby="tap-title" {
            div { code.command { (command) } }
            p { button type="button" { "Start" } " " span.quiet role="status" { "stopped" } }
            div.panel.scroll.tap tabindex="0" role="region" aria-label="Requests" {
                table {
                    thead {
                        tr {
                            @for name in ["Direction", "Peer", "Method", "Request", "TLS"] { th scope="col" { (name) } }
                            @for name in ["Status", "Latency"] { th.number scope="col" { (name) } }
                        }
                    }
                    tbody {}
                }
            }
        }
    }
}
