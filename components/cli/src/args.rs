//! The root of the command line: flags that every command shares, and the list of commands.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    check, completion, dashboard, demo, diagnostics, edges, get, identity, inject, install, stat, tap, top,
    uninject, uninstall, upgrade, version, why,
};

/// Encrypts and authenticates the traffic between your pods, and never breaks it.
#[derive(Debug, Parser)]
#[command(name = "conduit", version = version::VERSION, max_term_width = 120)]
pub struct Cli {
    /// The flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Namespace of the control plane
    #[arg(
        long,
        short = 'c',
        global = true,
        value_name = "NAMESPACE",
        default_value = "conduit",
        value_parser = namespace,
        help_heading = "Global options"
    )]
    pub conduit_namespace: String,
    /// Path of the kubeconfig file [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig file [default: its current one]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub context: Option<String>,
    /// Address of Conduit's API, for reaching it without Kubernetes
    #[arg(long, global = true, value_name = "HOST:PORT", value_parser = api_addr, help_heading = "Global options")]
    pub api_addr: Option<String>,
    /// Log what is done, to stderr
    #[arg(long, global = true, help_heading = "Global options")]
    pub verbose: bool,
}

/// The commands, in the order in which help lists them.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "each is described by its Args")]
pub enum Command {
    Demo(demo::Args),
    Install(install::Args),
    Upgrade(upgrade::Args),
    Uninstall(uninstall::Args),
    Inject(inject::Args),
    Uninject(uninject::Args),
    Stat(stat::Args),
    Edges(edges::Args),
    Tap(tap::Args),
    Why(why::Args),
    Check(check::Args),
    Identity(identity::Args),
    Diagnostics(diagnostics::Args),
    Top(top::Args),
    Dashboard(dashboard::Args),
    Get(get::Args),
    Completion(completion::Args),
    Version(version::Args),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// What the user must read; the process then ends with code 1.
    pub async fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        match self {
            Self::Demo(args) => demo::run(args, global).await,
            Self::Install(args) => install::run(args, global).await,
            Self::Upgrade(args) => upgrade::run(args, global).await,
            Self::Uninstall(args) => uninstall::run(args, global).await,
            Self::Inject(args) => inject::run(args, global).await,
            Self::Uninject(args) => uninject::run(args, global).await,
            Self::Stat(args) => stat::run(args, global).await,
            Self::Edges(args) => edges::run(args, global).await,
            Self::Tap(args) => tap::run(args, global).await,
            Self::Why(args) => why::run(args, global).await,
            Self::Check(args) => check::run(args, global).await,
            Self::Identity(args) => identity::run(args, global).await,
            Self::Diagnostics(args) => diagnostics::run(args, global).await,
            Self::Top(args) => top::run(args, global).await,
            Self::Dashboard(args) => dashboard::run(args, global).await,
            Self::Get(args) => get::run(args, global).await,
            Self::Completion(args) => completion::run(args, global).await,
            Self::Version(args) => version::run(args, global).await,
        }
    }
}

/// Parses the name of a namespace: an RFC 1123 label, as Kubernetes wants it.
///
/// # Errors
/// It is none.
pub fn namespace(value: &str) -> Result<String, String> {
    let inner = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
    let valid = (1..=63).contains(&value.len())
        && value.bytes().all(inner)
        && !value.starts_with('-')
        && !value.ends_with('-');
    if valid {
        Ok(value.to_owned())
    } else {
        Err("not a namespace: use at most 63 lower-case letters, digits and inner dashes".to_owned())
    }
}

/// Parses an address of the API; as a URL too, which browsers and curl want.
///
/// # Errors
/// It is none, or of something else than plain HTTP.
fn api_addr(value: &str) -> Result<String, String> {
    let expected = || "not an address: use host:port, such as 127.0.0.1:8085".to_owned();
    let rest = value.strip_prefix("http://").unwrap_or(value);
    if rest.contains("://") {
        return Err("the API speaks plain HTTP: use host:port without a scheme".to_owned());
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':').ok_or_else(expected)?;
    let is_bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let is_name = !host.is_empty() && !host.contains([':', '/', '@', '?', '#', '[', ']', ' ']);
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    if (is_name || is_bracketed) && is_port { Ok(rest.to_owned()) } else { Err(expected()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn addresses_of_the_api_may_be_urls() {
        for good in ["127.0.0.1:80", "http://127.0.0.1:80", "http://127.0.0.1:80/"] {
            assert_eq!(api_addr(good).as_deref(), Ok("127.0.0.1:80"));
        }
        assert!(
            ["[::1]:80", "observe.conduit:8085"].iter().all(|good| api_addr(good).as_deref() == Ok(good))
        );
        for bad in
            ["", ":80", "a", "a:", "a:0", "a:65536", "::1:80", "[]:80", "a/b:80", "http://a:80/api", "a:80/x"]
        {
            assert!(api_addr(bad).is_err_and(|error| error.contains("host:port")), "{bad}");
        }
        assert!(api_addr("https://a:80").is_err_and(|error| error.contains("plain HTTP")));
    }

    #[test]
    fn namespaces_are_labels() {
        for good in ["conduit", "a", "a-1", &"x".repeat(63)] {
            assert_eq!(namespace(good).as_deref(), Ok(good));
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "a b", &"x".repeat(64)] {
            assert!(namespace(bad).is_err(), "{bad}");
        }
    }
}
