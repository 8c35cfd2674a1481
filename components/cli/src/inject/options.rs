//! How a pod is injected.

use clap::Args;
use conduit_identity::ControlPlane;
use conduit_k8s::owned;
use conduit_runtime::env;

use crate::{
    args::namespace,
    mesh_options::{MeshOptions, image, log_filter, port},
};

/// The flags of inject.
#[derive(Debug, Clone, Args)]
pub struct Flags {
    /// What is shared with install.
    #[command(flatten)]
    pub mesh: MeshOptions,
    /// Namespace of manifests that name none, where it matters: for names of over 63 characters
    #[arg(long, short = 'n', value_name = "NAMESPACE", value_parser = namespace)]
    pub namespace: Option<String>,
    /// Ports of the pod that are reached without the proxy
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = port)]
    pub skip_inbound_ports: Vec<u16>,
    /// Ports of others that the pod reaches without the proxy
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = port)]
    pub skip_outbound_ports: Vec<u16>,
    /// Run the proxy as an init container that keeps running (Kubernetes 1.29 or later): Jobs then end without being told
    /// by the control plane
    #[arg(long)]
    pub native_sidecar: bool,
    /// Image of the proxy; one with a tag or a digest is used as it is
    #[arg(long, value_name = "IMAGE", default_value = "conduit/proxy", value_parser = image, help_heading = PROXY)]
    pub proxy_image: String,
    /// Image that redirects a pod's traffic; one with a tag or a digest is used as it is
    #[arg(long, value_name = "IMAGE", default_value = "conduit/proxy-init", value_parser = image, help_heading = PROXY)]
    pub init_image: String,
    /// User that the proxy runs as, whose own connections are not redirected
    #[arg(
        long,
        value_name = "UID",
        default_value_t = owned::PROXY_UID,
        value_parser = clap::value_parser!(i64).range(1..=2_147_483_647),
        help_heading = PROXY
    )]
    pub proxy_uid: i64,
    /// What the proxy logs
    #[arg(long, value_name = "FILTER", default_value = "warn,conduit_proxy=info", value_parser = log_filter, help_heading = PROXY)]
    pub proxy_log_level: String,
    /// How long the proxy waits for a connection to an endpoint
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, help_heading = PROXY)]
    pub proxy_bind_timeout: String,
    /// CPU that the proxy asks for
    #[arg(long, value_name = "QUANTITY", default_value = "10m", value_parser = quantity, help_heading = PROXY)]
    pub proxy_cpu_request: String,
    /// Memory that the proxy asks for
    #[arg(long, value_name = "QUANTITY", default_value = "24Mi", value_parser = quantity, help_heading = PROXY)]
    pub proxy_memory_request: String,
    /// Port on which the proxy takes what others send to the pod
    #[arg(long, value_name = "PORT", default_value_t = owned::PORT_INBOUND, value_parser = port, help_heading = PROXY)]
    pub inbound_port: u16,
    /// Port on which the proxy takes what the pod sends
    #[arg(long, value_name = "PORT", default_value_t = owned::PORT_OUTBOUND, value_parser = port, help_heading = PROXY)]
    pub outbound_port: u16,
    /// Port on which the proxy answers tap
    #[arg(long, value_name = "PORT", default_value_t = owned::PORT_TAP, value_parser = port, help_heading = PROXY)]
    pub control_port: u16,
    /// Port on which the proxy serves metrics and probes
    #[arg(long, value_name = "PORT", default_value_t = owned::PORT_ADMIN, value_parser = port, help_heading = PROXY)]
    pub metrics_port: u16,
}

const PROXY: &str = "Proxy options";

/// Everything that decides how a pod is injected.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the user asked for.
    pub flags: Flags,
    /// Whose mesh the pods join.
    pub control_plane: ControlPlane,
}

impl Options {
    /// Options for the mesh of the control plane in `control_namespace`.
    ///
    /// # Errors
    /// Two listeners of the proxy have the same port; the user must give one another.
    pub fn new(flags: Flags, control_namespace: &str) -> anyhow::Result<Self> {
        let control_plane = flags.mesh.control_plane(control_namespace);
        let options = Self { flags, control_plane };
        let names = ["--inbound-port", "--outbound-port", "--control-port", "--metrics-port"];
        let ports = options.ports();
        for (index, port) in ports.iter().enumerate() {
            if let Some(other) = ports[..index].iter().position(|earlier| earlier == port) {
                anyhow::bail!(
                    "{} and {} are both {port}: give each a port of its own",
                    names[other],
                    names[index]
                );
            }
        }
        Ok(options)
    }

    /// The ports that the proxy listens on.
    pub fn ports(&self) -> [u16; 4] {
        let Flags { inbound_port, outbound_port, control_port, metrics_port, .. } = self.flags;
        [inbound_port, outbound_port, control_port, metrics_port]
    }
}

/// Takes what Go takes for a duration too, as v0.5.0 did, and writes it in the proxy's own grammar, so that what passes
/// here does not stop a proxy.
fn duration(value: &str) -> Result<String, String> {
    if let Ok(duration) = env::duration(value) {
        return if duration.is_zero() {
            Err("it must be more than nothing".to_owned())
        } else {
            Ok(value.to_owned())
        };
    }
    match go_milliseconds(value) {
        Some(ms) if ms > 0 => Ok(format!("{ms}ms")),
        _ => Err(
            "not a duration of 1 ms or more: use a number and a unit of ms, s, m or h, such as 10s or 1m30s"
                .to_owned(),
        ),
    }
}

/// A duration as Go's `time.ParseDuration` reads it, in whole milliseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float within the range of a day"
)]
fn go_milliseconds(value: &str) -> Option<u64> {
    const MOST_MS: f64 = 86_400_000.0;
    let mut rest = value;
    let mut total_ms = 0.0;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, after) =
            after.split_at(after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len()));
        let unit_ms = match unit {
            "ns" => 1e-6,
            "us" | "µs" | "μs" => 1e-3,
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 6e4,
            "h" => 3.6e6,
            _ => return None,
        };
        total_ms += number.parse::<f64>().ok()? * unit_ms;
        rest = after;
    }
    (total_ms <= MOST_MS).then(|| total_ms.round() as u64)
}

/// A quantity of Kubernetes' resource model, as far as requests use it.
fn quantity(value: &str) -> Result<String, String> {
    let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &value[number.len()..];
    let number_is_sound = number.starts_with(|c: char| c.is_ascii_digit())
        && number.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.')
        && number.matches('.').count() <= 1;
    if number_is_sound && ["", "m", "k", "M", "G", "Ki", "Mi", "Gi"].contains(&suffix) {
        Ok(value.to_owned())
    } else {
        Err("not a quantity: use a number with or without a unit, such as 100m or 64Mi".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn parse(args: &[&str]) -> Result<Flags, String> {
        let args = std::iter::once("test").chain(args.iter().copied());
        Line::try_parse_from(args).map(|line| line.flags).map_err(|error| error.to_string())
    }

    #[test]
    fn bad_values_are_refused_with_flag_value_and_remedy() {
        let bad = [
            ["--namespace", "A"],
            ["--skip-inbound-ports", "80,x"],
            ["--proxy-image", "a//b"],
            ["--proxy-uid", "0"],
            ["--proxy-log-level", "loud=very"],
            ["--proxy-bind-timeout", "1.5x"],
            ["--proxy-bind-timeout", "0"],
            ["--proxy-cpu-request", "much"],
            ["--proxy-memory-request", "1.2.3Mi"],
            ["--metrics-port", "65536"],
        ];
        let errors: Vec<String> = bad
            .iter()
            .map(|args| {
                let error = parse(args).map(|_| ()).expect_err(args[1]);
                assert!(error.contains(args[0]), "{error}");
                error.lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
            })
            .collect();
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn durations_of_go_become_those_of_the_proxy() {
        for (given, told) in [
            ("10s", "10s"),
            ("1.5s", "1500ms"),
            ("1m30s", "90000ms"),
            (".5s", "500ms"),
            ("1h0.5m", "3630000ms"),
        ] {
            assert_eq!(duration(given).as_deref(), Ok(told), "{given}");
            assert!(env::duration(told).is_ok());
        }
        for bad in ["", "10", "-1s", "1.2.3s", "0s", "0.0s", "100ns", "25h1s", "1s1", "s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_of_the_proxy_must_differ() {
        let flags = parse(&["--inbound-port", "4191"]).expect("each is sound");
        let error = Options::new(flags, "conduit").expect_err("two are the same");
        assert_eq!(
            error.to_string(),
            "--inbound-port and --metrics-port are both 4191: give each a port of its own"
        );
    }
}
