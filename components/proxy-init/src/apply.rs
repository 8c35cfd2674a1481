//! Puts the rules into the kernel: one `iptables-restore` for each address family, which changes all of its rules or
//! none.
//!
//! The kernel has two packet filters, and a node may lack either. Which one is used is decided by what the network
//! namespace holds already, because rules in both would both apply; in a fresh one, nf_tables if it works.
//!
//! A pod without IPv6 loses nothing by a kernel without it. A pod with an IPv6 address that others reach is not started
//! half redirected.

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    path::PathBuf,
    process::{Command, ExitStatus},
    time::Duration,
};

use crate::{
    args::Backend,
    child::{self, RunError},
    rules::{self, Rules},
};

/// For one program. A node under load takes seconds for what otherwise takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(15);

/// How long a program waits for another that is changing rules, below its deadline so that it can say so itself.
const LOCK_WAIT_S: &str = "5";

/// Where programs are when nobody says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Bits of capability masks, from linux/capability.h.
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;

/// The machine as this process sees it.
#[derive(Debug)]
pub(crate) struct Host {
    /// Where the kernel tells about this process and its network namespace.
    proc: PathBuf,
    /// Where programs are looked for.
    path: OsString,
}

/// What became of each address family.
#[derive(Debug)]
pub(crate) struct Report {
    ipv4: Tool,
    ipv6: Ipv6,
}

#[derive(Debug)]
enum Ipv6 {
    Off,
    Redirected(Tool),
    /// Nobody notices, as the pod has no address that others reach.
    NotRedirected(ApplyError),
}

/// Why connections are not redirected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error(
        "the capability NET_ADMIN is missing (CapEff is {0:016x}): run this container as user 0 and add NET_ADMIN and \
         NET_RAW to its securityContext.capabilities; a policy of the namespace may forbid them"
    )]
    NoCapability(u64),
    #[error(
        "{0}-nft-restore, {0}-legacy-restore and {0}-restore are not in PATH ({1}): add iptables to the image"
    )]
    NoProgram(&'static str, String),
    #[error(
        "{family} connections cannot be redirected: {}: the node's kernel must offer a nat table with the owner match \
         and the REDIRECT target: load nf_nat, xt_owner and xt_REDIRECT, and nft_compat or iptable_nat and \
         ip6table_nat, on the node",
        joined(.failures)
    )]
    Refused { family: Family, failures: Vec<Failure> },
}

/// A program that did not do its part.
#[derive(Debug, thiserror::Error)]
#[error("{program}: {cause}")]
pub(crate) struct Failure {
    program: String,
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(
        "the capability NET_RAW is missing: add it to the securityContext.capabilities of this container"
    )]
    NoCapability,
    #[error(transparent)]
    Run(RunError),
    #[error("{0}, {1}")]
    Exit(ExitStatus, String),
}

/// Makes `rules` those of this network namespace.
///
/// # Errors
/// The rules of IPv4, or of IPv6 where the pod is reached by it, are as they were before; the message says what the
/// operator must change.
pub(crate) fn apply(rules: &Rules, backend: Backend, host: &Host) -> Result<Report, ApplyError> {
    match host.capabilities() {
        Some(effective) if effective & (1 << NET_ADMIN) == 0 => {
            return Err(ApplyError::NoCapability(effective));
        }
        _ => {}
    }
    let ipv4 = host.install(rules, backend, Family::V4)?;
    let ipv6 = match host.reach_by_ipv6() {
        Reach::None => Ipv6::Off,
        Reach::Local => {
            host.install(rules, backend, Family::V6).map_or_else(Ipv6::NotRedirected, Ipv6::Redirected)
        }
        Reach::Others => Ipv6::Redirected(host.install(rules, backend, Family::V6)?),
    };
    Ok(Report { ipv4, ipv6 })
}

impl Host {
    /// This process's own.
    pub(crate) fn this() -> Self {
        Self { proc: "/proc".into(), path: env::var_os("PATH").unwrap_or_else(|| PATH.into()) }
    }

    /// What this process may do; nothing where the kernel does not say, and then the programs will find out.
    fn capabilities(&self) -> Option<u64> {
        let status = fs::read_to_string(self.proc.join("self/status")).ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    }

    /// From the addresses' scopes: 10 is this host's, 20 the link's.
    fn reach_by_ipv6(&self) -> Reach {
        let addresses = fs::read_to_string(self.proc.join("net/if_inet6")).unwrap_or_default();
        let scope = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
        let scopes: Vec<String> = addresses.lines().filter_map(scope).collect();
        match scopes.iter().any(|scope| scope != "10" && scope != "20") {
            true => Reach::Others,
            false if scopes.is_empty() => Reach::None,
            false => Reach::Local,
        }
    }

    fn install(&self, rules: &Rules, backend: Backend, family: Family) -> Result<Tool, ApplyError> {
        let mut failures = Vec::new();
        for (tool, present) in self.candidates(backend, family) {
            let restored =
                present.and_then(|present| self.restore(tool, family, &rules.restore_script(&present)));
            match restored {
                Ok(()) => return Ok(tool),
                Err(failure) => failures.push(failure),
            }
        }
        match failures.iter().all(Failure::is_missing) {
            true => Err(ApplyError::NoProgram(family.program(), self.path.to_string_lossy().into_owned())),
            false => Err(ApplyError::Refused {
                family,
                // Programs that are not there explain nothing when others are.
                failures: failures.into_iter().filter(|failure| !failure.is_missing()).collect(),
            }),
        }
    }

    /// The tools to try, best first, each with the nat table that it sees.
    fn candidates(&self, backend: Backend, family: Family) -> Vec<(Tool, Result<String, Failure>)> {
        let mut candidates: Vec<_> =
            Tool::of(backend).iter().map(|tool| (*tool, self.present(*tool, family))).collect();
        let missing =
            |(_, present): &(Tool, Result<String, Failure>)| present.as_ref().is_err_and(Failure::is_missing);
        if backend == Backend::Auto && candidates.iter().all(missing) {
            return vec![(Tool::Plain, self.present(Tool::Plain, family))];
        }
        let ours =
            |(_, present): &(Tool, Result<String, Failure>)| present.as_deref().is_ok_and(rules::are_ours);
        if candidates.iter().any(ours) {
            candidates.retain(ours);
        } else if self.has_legacy_table(family) {
            candidates.sort_by_key(|(tool, _)| *tool != Tool::Legacy);
        }
        candidates
    }

    /// The nat table that `tool` sees.
    fn present(&self, tool: Tool, family: Family) -> Result<String, Failure> {
        let program = tool.program(family, "save");
        let may_be_raw = self.capabilities().is_none_or(|effective| effective & (1 << NET_RAW) != 0);
        if tool == Tool::Legacy && !may_be_raw {
            return Err(Failure { program, cause: Cause::NoCapability });
        }
        // Listing a table of ip_tables creates it, and loads a module into the node's kernel.
        if tool == Tool::Legacy && !self.has_legacy_table(family) {
            return self.run(&program, &["--version"], "").map(|_| String::new());
        }
        self.run(&program, &["-t", "nat"], "")
    }

    fn has_legacy_table(&self, family: Family) -> bool {
        let file = match family {
            Family::V4 => "net/ip_tables_names",
            Family::V6 => "net/ip6_tables_names",
        };
        fs::read_to_string(self.proc.join(file)).is_ok_and(|names| names.lines().any(|name| name == "nat"))
    }

    fn restore(&self, tool: Tool, family: Family, script: &str) -> Result<(), Failure> {
        let program = tool.program(family, "restore");
        self.run(&program, &["--noflush", "--wait", LOCK_WAIT_S], script).map(drop)
    }

    fn run(&self, program: &str, args: &[&str], input: &str) -> Result<String, Failure> {
        let mut command = Command::new(program);
        // Set for the program too, because that is where it is looked up.
        command.args(args).env("PATH", &self.path);
        let cause = match child::run(&mut command, input, DEADLINE) {
            Ok(ended) if ended.status.success() => return Ok(ended.stdout),
            Ok(ended) => Cause::Exit(ended.status, one_line(&ended.stderr)),
            Err(error) => Cause::Run(error),
        };
        Err(Failure { program: program.to_owned(), cause })
    }
}

/// Who can reach the pod by IPv6.
#[derive(Debug, PartialEq, Eq)]
enum Reach {
    None,
    Local,
    Others,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    fn program(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The programs for one of the kernel's packet filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    Nft,
    Legacy,
    /// Whichever the distribution has chosen, where it has one only.
    Plain,
}

impl Tool {
    fn of(backend: Backend) -> &'static [Self] {
        match backend {
            Backend::Auto => &[Self::Nft, Self::Legacy],
            Backend::Nft => &[Self::Nft],
            Backend::Legacy => &[Self::Legacy],
        }
    }

    fn program(self, family: Family, action: &str) -> String {
        let family = family.program();
        match self {
            Self::Nft => format!("{family}-nft-{action}"),
            Self::Legacy => format!("{family}-legacy-{action}"),
            Self::Plain => format!("{family}-{action}"),
        }
    }
}

impl Failure {
    fn is_missing(&self) -> bool {
        matches!(&self.cause, Cause::Run(RunError::Start(error)) if error.kind() == std::io::ErrorKind::NotFound)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "IPv4 connections are redirected, by {}", self.ipv4.program(Family::V4, "restore"))?;
        match &self.ipv6 {
            Ipv6::Off => write!(f, "IPv6 is off in this network namespace: there is nothing to redirect"),
            Ipv6::Redirected(tool) => {
                write!(f, "IPv6 connections are redirected, by {}", tool.program(Family::V6, "restore"))
            }
            Ipv6::NotRedirected(error) => {
                write!(f, "IPv6 is left as it is, as no address of this pod can be reached by it: {error}")
            }
        }
    }
}

fn joined(failures: &[Failure]) -> String {
    failures.iter().map(Failure::to_string).collect::<Vec<_>>().join("; ")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::args::Args;

    const ALL_CAPABILITIES: &str = "CapEff:\t000001ffffffffff\n";
    const LINK_LOCAL: &str = "fe800000000000000000000000000001 02 40 20 80     eth0\n";
    const GLOBAL: &str = "fd770000000000000000000000000001 02 40 00 80     eth0\n";

    /// A machine made of files: what the kernel tells, and programs that write down what they are given.
    struct Fake {
        directory: tempfile::TempDir,
    }

    impl Fake {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            for name in ["proc/self", "proc/net", "bin"] {
                fs::create_dir_all(directory.path().join(name)).expect("a directory");
            }
            let fake = Self { directory };
            fake.kernel("self/status", ALL_CAPABILITIES);
            fake
        }

        fn kernel(&self, file: &str, text: &str) {
            fs::write(self.path().join("proc").join(file), text).expect("written");
        }

        fn path(&self) -> &Path {
            self.directory.path()
        }

        fn host(&self) -> Host {
            let path = format!("{}:/usr/bin:/bin", self.path().join("bin").display());
            Host { proc: self.path().join("proc"), path: path.into() }
        }

        /// By another process: a program that this one holds open for writing cannot be started.
        fn program(&self, name: &str, body: &str) {
            let file = self.path().join("bin").join(name);
            let script = format!("#!/bin/sh\n{body}\n");
            let mut writer = Command::new("sh");
            writer.args(["-c", "cat >\"$0\" && chmod +x \"$0\""]).arg(file);
            assert!(child::run(&mut writer, &script, DEADLINE).expect("it ends").status.success());
        }

        /// Both programs of `tool`, in which `present` are the rules.
        fn tool(&self, tool: &str, present: &str) {
            self.program(&format!("{tool}-save"), &format!("printf '{present}'"));
            let copy = self.path().join(tool);
            self.program(&format!("{tool}-restore"), &format!("cat >{}", copy.display()));
        }

        fn restored(&self, tool: &str) -> Option<String> {
            fs::read_to_string(self.path().join(tool)).ok()
        }

        fn apply(&self, backend: Backend) -> Result<String, String> {
            apply(&rules(), backend, &self.host())
                .map(|report| report.to_string())
                .map_err(|error| error.to_string().replace(&*self.path().to_string_lossy(), "DIR"))
        }
    }

    fn rules() -> Rules {
        let args = Args::try_parse_from(["init", "-p", "4143", "-o", "4140", "-u", "2102"]).expect("sound");
        args.rules().expect("sound")
    }

    #[test]
    fn a_fresh_namespace_is_redirected_by_the_newest_filter() {
        let fake = Fake::new();
        fake.kernel("net/if_inet6", GLOBAL);
        for tool in ["iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"] {
            fake.tool(tool, "");
        }
        insta::assert_snapshot!(fake.apply(Backend::Auto).expect("redirected"));
        for tool in ["iptables-nft", "ip6tables-nft"] {
            assert_eq!(fake.restored(tool), Some(rules().restore_script("")));
        }
        assert_eq!(fake.restored("iptables-legacy"), None);
    }

    #[test]
    fn the_filter_that_holds_our_rules_is_used_again() {
        let fake = Fake::new();
        fake.kernel("net/ip_tables_names", "nat\n");
        fake.tool("iptables-legacy", "");
        fake.tool("iptables-nft", ":CONDUIT_OUTPUT - [0:0]\\n-A OUTPUT -j CONDUIT_OUTPUT\\n");
        fake.apply(Backend::Auto).expect("redirected");
        assert_eq!(fake.restored("iptables-legacy"), None);
        let again = fake.restored("iptables-nft").expect("used");
        assert!(!again.contains("-A OUTPUT -j"), "{again}");
    }

    #[test]
    fn the_filter_that_a_namespace_uses_already_is_preferred() {
        let fake = Fake::new();
        fake.kernel("net/ip_tables_names", "filter\nnat\n");
        fake.tool("iptables-legacy", "");
        fake.tool("iptables-nft", "");
        fake.apply(Backend::Auto).expect("redirected");
        assert!(fake.restored("iptables-legacy").is_some() && fake.restored("iptables-nft").is_none());
    }

    #[test]
    fn a_kernel_without_nf_tables_is_redirected_by_ip_tables() {
        let fake = Fake::new();
        fake.program(
            "iptables-nft-save",
            "echo 'Failed to initialize nft: Protocol not supported' >&2; exit 1",
        );
        fake.tool("iptables-legacy", "");
        fake.apply(Backend::Auto).expect("redirected");
        assert!(fake.restored("iptables-legacy").is_some());
    }

    #[test]
    fn the_only_program_there_is_is_used() {
        let fake = Fake::new();
        fake.tool("iptables", "");
        insta::assert_snapshot!(fake.apply(Backend::Auto).expect("redirected"));
        assert!(fake.restored("iptables").is_some());
    }

    #[test]
    fn a_filter_can_be_demanded() {
        let fake = Fake::new();
        fake.tool("iptables-legacy", "");
        fake.tool("iptables-nft", "");
        fake.apply(Backend::Legacy).expect("redirected");
        assert!(fake.restored("iptables-legacy").is_some() && fake.restored("iptables-nft").is_none());
    }

    #[test]
    fn what_the_kernel_lacks_is_an_error_that_says_what_to_load() {
        let fake = Fake::new();
        for tool in ["iptables-nft", "iptables-legacy"] {
            fake.program(&format!("{tool}-save"), "");
            fake.program(&format!("{tool}-restore"), "echo 'line 3:' >&2; echo no REDIRECT >&2; exit 4");
        }
        insta::assert_snapshot!(fake.apply(Backend::Auto).expect_err("neither works"));
    }

    #[test]
    fn missing_capabilities_are_named() {
        let fake = Fake::new();
        fake.tool("iptables-legacy", "");
        fake.kernel("self/status", "Name:\tinit\nCapEff:\t00000000a80405fb\n");
        let without_admin = fake.apply(Backend::Auto).expect_err("no NET_ADMIN");
        fake.kernel("self/status", "CapEff:\t0000000000001000\n");
        let without_raw = fake.apply(Backend::Auto).expect_err("no NET_RAW");
        insta::assert_snapshot!(format!("{without_admin}\n{without_raw}"));
        assert_eq!(fake.restored("iptables-legacy"), None);
    }

    #[test]
    fn a_missing_program_is_named_with_where_it_was_looked_for() {
        let fake = Fake::new();
        let host = Host { path: "/nowhere".into(), ..fake.host() };
        let error = apply(&rules(), Backend::Auto, &host).expect_err("no programs");
        insta::assert_snapshot!(error.to_string());
    }

    #[test]
    fn a_kernel_without_ipv6_is_no_error() {
        let fake = Fake::new();
        fake.tool("iptables-nft", "");
        insta::assert_snapshot!(fake.apply(Backend::Auto).expect("IPv4 is redirected"));
    }

    #[test]
    fn ipv6_that_nobody_reaches_may_fail() {
        let fake = Fake::new();
        fake.tool("iptables-nft", "");
        fake.kernel("net/if_inet6", LINK_LOCAL);
        fake.program("ip6tables-nft-save", "echo 'table is missing' >&2; exit 3");
        insta::assert_snapshot!(fake.apply(Backend::Auto).expect("IPv4 is redirected"));
    }

    #[test]
    fn a_pod_that_is_reached_by_ipv6_is_not_started_half_redirected() {
        let fake = Fake::new();
        fake.tool("iptables-nft", "");
        fake.kernel("net/if_inet6", &format!("{LINK_LOCAL}{GLOBAL}"));
        fake.program("ip6tables-nft-save", "echo 'table is missing' >&2; exit 3");
        insta::assert_snapshot!(fake.apply(Backend::Auto).expect_err("IPv6 is not redirected"));
    }
}
