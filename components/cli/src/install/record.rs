//! What the user chose at install, kept in the cluster as flags, so that `conduit upgrade` chooses the same again.
//!
//! Only what differs from the defaults is kept: a later release may have better ones. The version is the upgrade's own.

use clap::{Args as _, Command, FromArgMatches, Parser, parser::ValueSource};
use conduit_k8s::owned;
use serde_json::{Value, json};

use super::{Flags, Options, component::labels};
use crate::version::VERSION;

/// Key of the release that printed the manifests.
pub const VERSION_KEY: &str = "version";
/// Key of the flags, one a line.
pub const FLAGS_KEY: &str = "flags";

/// The config map with the record.
pub(super) fn object(options: &Options) -> Value {
    let lines: String = chosen(&options.flags).into_iter().map(|flag| format!("{flag}\n")).collect();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": owned::INSTALL_CONFIGMAP,
            "namespace": options.control_plane.namespace,
            "labels": labels("install", options),
            "annotations": {owned::ANNOTATION_CREATED_BY: format!("conduit/cli {VERSION}")},
        },
        "data": {VERSION_KEY: VERSION, FLAGS_KEY: lines},
    })
}

/// The flags that differ from the defaults, as they are written on a command line.
fn chosen(flags: &Flags) -> Vec<String> {
    let ha = format!("--ha={}", flags.ha);
    let defaults = parse([ha.as_str()]).map(|defaults| values(&defaults)).unwrap_or_default();
    let differs = |(name, value): &(&str, String)| match *name {
        "ha" => flags.ha,
        name => !defaults.contains(&(name, value.clone())),
    };
    let line = |(name, value): (&str, String)| format!("--{name}={value}");
    values(flags).into_iter().filter(differs).map(line).collect()
}

/// Every flag that is kept, with its value.
fn values(flags: &Flags) -> Vec<(&'static str, String)> {
    let mesh = &flags.mesh;
    let mut values = vec![
        ("tls", mesh.tls.as_str().to_owned()),
        ("trust-domain", mesh.trust_domain.clone()),
        ("cluster-domain", mesh.cluster_domain.clone()),
        ("registry", mesh.registry.clone()),
        ("image-pull-policy", mesh.image_pull_policy.to_string()),
        ("api-port", mesh.api_port.to_string()),
        ("ha", flags.ha.to_string()),
        ("kube-version", flags.kube_version.to_string()),
        ("controller-replicas", flags.controller_replicas.to_string()),
        ("web-replicas", flags.web_replicas.to_string()),
        ("prometheus-replicas", flags.prometheus_replicas.to_string()),
        ("prometheus-image", flags.prometheus_image.clone()),
        ("controller-log-level", flags.controller_log_level.clone()),
    ];
    values.extend(flags.prometheus_url.iter().map(|url| ("prometheus-url", url.to_string())));
    values
}

/// A command line of these flags and nothing else.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

fn parse<'l>(lines: impl IntoIterator<Item = &'l str>) -> Result<Flags, String> {
    let parsed = Line::try_parse_from(lines);
    parsed.map(|line| line.flags).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        first.strip_prefix("error: ").unwrap_or(first).to_owned()
    })
}

/// The flags of install that were given to another command, and not the defaults of the others.
#[derive(Debug, Clone)]
pub struct Given {
    /// Names and values.
    flags: Vec<(String, String)>,
}

impl Given {
    /// What install would have been told: the flags of a record, and over them those that were given.
    ///
    /// # Errors
    /// Something in the record is no flag of this release.
    pub fn over(&self, record: &str) -> Result<Flags, String> {
        let is_given = |line: &&str| self.flags.iter().any(|(name, _)| *name == name_of(line));
        let kept = record.lines().map(str::trim).filter(|line| !line.is_empty() && !is_given(line));
        let given: Vec<String> = self.flags.iter().map(|(name, value)| format!("--{name}={value}")).collect();
        parse(kept.chain(given.iter().map(String::as_str)))
    }
}

/// What a line of a record sets.
fn name_of(line: &str) -> &str {
    let flag = line.strip_prefix("--").unwrap_or(line);
    flag.split_once('=').map_or(flag, |(name, _)| name)
}

impl clap::Args for Given {
    /// As install's, without its defaults: what is not given stays as it is.
    fn augment_args(command: Command) -> Command {
        Flags::augment_args(command).mut_args(|arg| arg.hide_default_value(true))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args_for_update(command).mut_args(|arg| arg.hide_default_value(true))
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let command = Flags::augment_args(Command::new("install"));
        let mut flags = Vec::new();
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            if matches.value_source(id) == Some(ValueSource::CommandLine) {
                let name = arg.get_long().unwrap_or(id).to_owned();
                let values = matches.get_raw(id).into_iter().flatten();
                flags.extend(values.map(|value| (name.clone(), value.to_string_lossy().into_owned())));
            }
        }
        Ok(Self { flags })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[derive(Parser)]
    struct Upgrade {
        #[command(flatten)]
        given: Given,
    }

    fn given(flags: &[&str]) -> Given {
        Upgrade::try_parse_from(std::iter::once(&"upgrade").chain(flags)).expect("the flags are sound").given
    }

    fn recorded(flags: &[&str]) -> String {
        chosen(&parse(flags.iter().copied()).expect("the flags are sound")).join("\n")
    }

    /// Something else than the default of each flag.
    const OTHERS: [&str; 14] = [
        "--tls=optional",
        "--trust-domain=example.org",
        "--cluster-domain=k8s.example",
        "--registry=r.io:5000/m",
        "--image-pull-policy=Never",
        "--api-port=9000",
        "--ha=true",
        "--kube-version=1.30",
        "--controller-replicas=7",
        "--web-replicas=5",
        "--prometheus-replicas=1",
        "--prometheus-image=prom:1",
        "--controller-log-level=warn,conduit_ca=debug",
        "--prometheus-url=http://prometheus.monitoring:9090",
    ];

    #[test]
    fn every_flag_is_kept_but_the_version() {
        let command = Flags::augment_args(Command::new("install"));
        let names: BTreeSet<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        let kept: BTreeSet<&str> =
            OTHERS.iter().map(|line| name_of(line)).chain(["conduit-version"]).collect();
        assert_eq!(names, kept);
        let all = recorded(&OTHERS);
        assert_eq!(all.lines().collect::<BTreeSet<_>>(), OTHERS.into());
        let again = given(&[]).over(&all).expect("it is read");
        assert_eq!(format!("{again:?}"), format!("{:?}", parse(OTHERS).expect("they are sound")));
        assert_eq!(recorded(&[]), "");
        assert_eq!(recorded(&["-v", "1.2.3"]), "");
    }

    #[test]
    fn the_defaults_of_high_availability_are_defaults() {
        assert_eq!(recorded(&["--ha"]), "--ha=true");
        assert_eq!(
            recorded(&["--ha", "--web-replicas", "2", "--controller-replicas", "1"]),
            "--ha=true\n--controller-replicas=1"
        );
    }

    #[test]
    fn what_is_given_goes_before_what_was_kept_even_where_it_is_a_default() {
        let record = recorded(&["--tls=optional", "--ha", "--api-port", "9000"]);
        let flags = given(&["--tls", "disabled", "--ha=false", "-v", "9"]).over(&record).expect("it is read");
        assert_eq!((flags.mesh.tls.as_str(), flags.ha, flags.controller_replicas), ("disabled", false, 1));
        assert_eq!((flags.mesh.api_port, flags.mesh.conduit_version.as_str()), (9000, "9"));
    }

    #[test]
    fn a_record_of_something_else_is_refused_by_its_name() {
        for (record, named) in [("--colour=blue", "--colour"), ("--tls=maybe", "maybe"), ("hello", "hello")] {
            let error = given(&[]).over(record).expect_err(record);
            assert!(error.contains(named) && !error.contains('\n'), "{error}");
        }
    }
}
