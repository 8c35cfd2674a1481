//! The command line: what inject writes into the init container's arguments, and what people add by hand.

use std::num::NonZeroU16;

use clap::{CommandFactory, Parser, ValueEnum, error::ErrorKind};

use crate::rules::{PortRange, Rules, port};

/// Redirects the TCP connections of this network namespace to the proxy
#[derive(Debug, Parser)]
#[command(
    name = "conduit-proxy-init",
    version,
    after_help = "A list of ports is separated by commas; each is a port or a range such as 8000-8010."
)]
pub(crate) struct Args {
    /// Port on which the proxy takes what others send to the pod
    #[arg(long, short = 'p', value_name = "PORT", value_parser = port, allow_negative_numbers = true)]
    incoming_proxy_port: NonZeroU16,
    /// Port on which the proxy takes what the pod sends
    #[arg(long, short = 'o', value_name = "PORT", value_parser = port, allow_negative_numbers = true)]
    outgoing_proxy_port: NonZeroU16,
    /// User that the proxy runs as, whose own connections are not redirected
    #[arg(long, short = 'u', value_name = "UID", value_parser = user, allow_negative_numbers = true)]
    proxy_uid: u32,
    /// The pod's ports that are redirected to the proxy; without it all are
    #[arg(long, short = 'r', value_name = "PORTS", value_delimiter = ',', allow_negative_numbers = true)]
    ports_to_redirect: Vec<PortRange>,
    /// The pod's ports that are reached without the proxy
    #[arg(long, value_name = "PORTS", value_delimiter = ',', allow_negative_numbers = true)]
    inbound_ports_to_ignore: Vec<PortRange>,
    /// Ports of others that the pod reaches without the proxy
    #[arg(long, value_name = "PORTS", value_delimiter = ',', allow_negative_numbers = true)]
    outbound_ports_to_ignore: Vec<PortRange>,
    /// Which of the kernel's two packet filters is used
    #[arg(long, value_name = "FILTER", value_enum, default_value_t = Backend::Auto)]
    pub(crate) backend: Backend,
    /// Print the rules and change nothing
    #[arg(long)]
    pub(crate) simulate: bool,
}

/// Which of the kernel's packet filters holds the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// The one that holds rules already, else the newest that works
    Auto,
    /// nf_tables
    Nft,
    /// ip_tables
    Legacy,
}

impl Args {
    /// The rules that the flags describe.
    ///
    /// # Errors
    /// The proxy's two ports are the same; the user must give one another.
    pub(crate) fn rules(&self) -> Result<Rules, clap::Error> {
        if self.incoming_proxy_port == self.outgoing_proxy_port {
            let message = format!(
                "--incoming-proxy-port and --outgoing-proxy-port are both {}: give each a port of its own",
                self.incoming_proxy_port
            );
            return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
        }
        Ok(Rules {
            inbound_port: self.incoming_proxy_port,
            outbound_port: self.outgoing_proxy_port,
            proxy_uid: self.proxy_uid,
            redirected: self.ports_to_redirect.clone(),
            ignored_inbound: self.inbound_ports_to_ignore.clone(),
            ignored_outbound: self.outbound_ports_to_ignore.clone(),
        })
    }
}

fn user(text: &str) -> Result<u32, &'static str> {
    let expected =
        "use the number of the proxy's user, from 1 to 4294967294: connections of root must be told apart";
    // The highest number is the kernel's for "no user".
    text.parse().ok().filter(|uid| (1..u32::MAX).contains(uid)).ok_or(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What inject always gives.
    const INJECTED: [&str; 6] =
        ["--incoming-proxy-port", "4143", "--outgoing-proxy-port", "4140", "--proxy-uid", "2102"];

    fn parse(args: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["conduit-proxy-init"], args].concat())
    }

    fn first_paragraph(error: &clap::Error) -> String {
        error.to_string().lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn arguments_of_inject_are_understood() {
        let lists = ["--inbound-ports-to-ignore", "25,4190,4191", "--outbound-ports-to-ignore", "3306"];
        let args = parse(&[&INJECTED[..], &lists].concat()).expect("what inject writes");
        insta::assert_snapshot!(args.rules().expect("sound").restore_script(""));
    }

    #[test]
    fn short_flags_of_2018_are_understood() {
        let args = parse(&["-p", "4143", "-o", "4140", "-u", "2102", "-r", "80,8000-8010"]).expect("sound");
        assert_eq!(args.ports_to_redirect.len(), 2);
    }

    #[test]
    fn bad_values_are_refused_with_flag_value_and_remedy() {
        let bad = [
            ["--incoming-proxy-port", "-1"],
            ["--outgoing-proxy-port", "65536"],
            ["--proxy-uid", "0"],
            ["--proxy-uid", "-1"],
            ["--proxy-uid", "4294967295"],
            ["--inbound-ports-to-ignore", "80,,90"],
            ["--outbound-ports-to-ignore", "90-80"],
            ["--ports-to-redirect", "http"],
            ["--backend", "ebpf"],
        ];
        let errors = bad.map(|[flag, value]| {
            let mut args = INJECTED.to_vec();
            match args.iter().position(|given| *given == flag) {
                Some(position) => args[position + 1] = value,
                None => args.extend([flag, value]),
            }
            let error = first_paragraph(&parse(&args).expect_err(value));
            assert!(error.contains(flag), "{error}");
            error
        });
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = parse(&INJECTED[..4]).expect_err("no user");
        assert!(error.to_string().contains("--proxy-uid <UID>"), "{error}");
    }

    #[test]
    fn the_proxys_two_ports_must_differ() {
        let args = parse(&["-p", "4143", "-o", "4143", "-u", "2102"]).expect("each is sound");
        let error = args.rules().expect_err("both are the same");
        assert_eq!(
            first_paragraph(&error),
            "error: --incoming-proxy-port and --outgoing-proxy-port are both 4143: give each a port of its own"
        );
    }
}
