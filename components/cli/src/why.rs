//! `conduit why`: is it encrypted, and if not, why?

use std::{fmt::Write as _, process::ExitCode};

use clap::ValueEnum;
use conduit_observe::why::{Link, State, Verdict, Why};

use crate::{
    args::{Global, namespace},
    client::Client,
    output,
    resource::ResourceParser,
};

/// The code for what is not encrypted.
const PLAINTEXT: u8 = 3;

/// Say whether traffic is encrypted, and if not, which link is broken
///
/// Walks what TLS depends on: is Conduit installed, are both injected, is a certificate issued for each, mounted, loaded by
/// the proxy, advertised by the destination service, and was TLS negotiated. The verdict is what the proxies counted in the
/// last 10 s, else in the last minute; the links say why, and the first broken one is what to repair.
///
/// SRC is a workload or a pod, DST one of these or a service. Without DST it is about all that SRC sends and receives.
///
/// Exit code 0 when all that was seen is encrypted, 3 when something is not or cannot be, 1 when nobody can tell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conduit why deploy/web deploy/emoji -n emojivoto     is web → emoji encrypted?
  conduit why deploy/web svc/voting-svc -n emojivoto   by the service that web calls
  conduit why po/web-7c5d -n emojivoto                 one pod, and everybody it talks to")]
pub struct Args {
    /// Who sends: TYPE/NAME
    #[arg(value_name = "SRC", value_parser = ResourceParser, hide_possible_values = true)]
    from: String,
    /// Who receives: TYPE/NAME
    #[arg(value_name = "DST", value_parser = ResourceParser, hide_possible_values = true)]
    to: Option<String>,
    /// Namespace of both [default: the context's]
    #[arg(long, short = 'n', value_name = "NAMESPACE", value_parser = namespace)]
    namespace: Option<String>,
    /// Namespace of DST [default: --namespace]
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace, requires = "to")]
    to_namespace: Option<String>,
    /// How to print it
    #[arg(long, short = 'o', value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The links, one a line, and how to repair the first broken one
    Table,
    Json,
}

/// Prints the verdict and the links.
///
/// # Errors
/// The API cannot be reached or declines, or stdout cannot be written.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::find(global).await?;
    let why: Why = client.get("/api/v1/why", &args.parameters(&client)).await?;
    output::stdout(&match args.output {
        Format::Table => table(&why),
        Format::Json => serde_json::to_string_pretty(&why)? + "\n",
    })?;
    Ok(code(why.verdict))
}

fn code(verdict: Verdict) -> ExitCode {
    match verdict {
        Verdict::Encrypted => ExitCode::SUCCESS,
        Verdict::Plaintext => PLAINTEXT.into(),
        Verdict::Unknown => ExitCode::FAILURE,
    }
}

impl Args {
    fn parameters(&self, client: &Client) -> Vec<(&'static str, String)> {
        let namespace = self.namespace.as_deref().unwrap_or(client.default_namespace());
        let mut parameters = vec![("from", self.from.clone()), ("namespace", namespace.to_owned())];
        parameters.extend(self.to.iter().map(|to| ("to", to.clone())));
        parameters.extend(self.to_namespace.iter().map(|namespace| ("to_namespace", namespace.clone())));
        parameters
    }
}

fn table(why: &Why) -> String {
    let mut text = format!("{}\n\n", why.summary);
    let width = why.links.iter().map(|link| link.name().chars().count()).max().unwrap_or_default();
    for link in &why.links {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {:<width$}  {}", sign(link.state), link.name(), link.detail);
    }
    if let Some(broken) = why.first_broken().filter(|_| why.verdict != Verdict::Encrypted) {
        text.push('\n');
        text.push_str(&repair(broken));
    }
    text
}

fn repair(link: &Link) -> String {
    let mut text = format!("First broken link: {}\n", link.name());
    if let Some(since) = &link.since {
        let how = if link.since_is_exact { "since" } else { "at least since" };
        let _ = writeln!(text, "  {how} {since}");
    }
    if let Some(fix) = &link.fix {
        let _ = writeln!(text, "  {fix}");
    }
    text
}

const fn sign(state: State) -> char {
    match state {
        State::Ok => '√',
        State::Broken => '×',
        State::Unknown => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(verdict: &str, state: &str) -> Why {
        let link = |step: &str, end: Option<&str>, state: &str| {
            serde_json::json!({"step": step, "end": end, "state": state, "detail": "as it is", "reason": null,
                "since": "2026-01-01T00:00:00Z", "since_is_exact": step == "injected", "fix": format!("repair {step}")})
        };
        serde_json::from_value(serde_json::json!({
            "version": 1, "verdict": verdict, "summary": "deploy/a → deploy/b is ...", "from": "deploy/a",
            "from_namespace": "shop", "to": "deploy/b", "to_namespace": "shop",
            "links": [link("installed", None, "ok"), link("injected", Some("from"), state),
                link("loaded", Some("to"), "unknown"), link("negotiated", None, "broken")],
            "seen": {"window_ms": 10000, "connections": false, "encrypted": 1.0, "app_tls": 0.0, "plaintext": {}},
        }))
        .unwrap()
    }

    #[test]
    fn the_first_broken_link_is_told_with_its_repair() {
        insta::assert_snapshot!(table(&answer("plaintext", "broken")), @r"
        deploy/a → deploy/b is ...

        √ installed          as it is
        × injected (sender)  as it is
        ? loaded (receiver)  as it is
        × negotiated         as it is

        First broken link: injected (sender)
          since 2026-01-01T00:00:00Z
          repair injected
        ");
        let later = table(&answer("plaintext", "ok"));
        assert!(
            later.ends_with("negotiated\n  at least since 2026-01-01T00:00:00Z\n  repair negotiated\n"),
            "{later}"
        );
    }

    #[test]
    fn what_is_encrypted_needs_no_repair() {
        assert!(!table(&answer("encrypted", "ok")).contains("repair"));
    }

    #[test]
    fn each_verdict_has_its_code() {
        let codes = [Verdict::Encrypted, Verdict::Plaintext, Verdict::Unknown].map(code);
        assert_eq!(codes, [ExitCode::SUCCESS, ExitCode::from(3), ExitCode::FAILURE]);
    }
}
