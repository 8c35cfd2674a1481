//! The rules, as text for `iptables-restore --noflush`. Pure: flags and the rules that are present go in, a script comes
//! out.
//!
//! Two chains are ours, and declaring a chain empties it, so that a script replaces whatever an earlier run left. What is
//! not ours stays: the one line each in PREROUTING and OUTPUT that leads into our chains is added when it is missing, and
//! repaired when it is there in another form or more than once.
//!
//! Connections through the loopback interface are never redirected. That covers containers that talk to each other by
//! localhost, and a pod that calls its own address, which the kernel delivers through loopback too.
//!
//! Rules carry no comments: a comment is one more kernel module that a node may lack.

use std::{fmt, num::NonZeroU16, str::FromStr};

const INBOUND_CHAIN: &str = "CONDUIT_REDIRECT";
const OUTBOUND_CHAIN: &str = "CONDUIT_OUTPUT";

/// Which connections of a pod go to its proxy.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Where the proxy takes what others send to the pod.
    pub(crate) inbound_port: NonZeroU16,
    /// Where the proxy takes what the pod sends.
    pub(crate) outbound_port: NonZeroU16,
    /// Who the proxy is: its own connections leave the pod as they are.
    pub(crate) proxy_uid: u32,
    /// The pod's ports that are redirected; all of them when there are none here.
    pub(crate) redirected: Vec<PortRange>,
    /// The pod's ports that are reached without the proxy, redirected or not.
    pub(crate) ignored_inbound: Vec<PortRange>,
    /// Ports of others that the pod reaches without the proxy.
    pub(crate) ignored_outbound: Vec<PortRange>,
}

impl Rules {
    /// The script that makes these the rules of a nat table in which `present`, the output of `iptables-save -t nat`,
    /// holds now. Run on its own result it changes nothing.
    pub(crate) fn restore_script(&self, present: &str) -> String {
        let mut lines = vec!["*nat".to_owned()];
        lines.extend([INBOUND_CHAIN, OUTBOUND_CHAIN].map(|chain| format!(":{chain} - [0:0]")));
        lines.extend(self.inbound());
        lines.extend(self.outbound());
        lines.extend(jump(present, "PREROUTING", INBOUND_CHAIN));
        lines.extend(jump(present, "OUTPUT", OUTBOUND_CHAIN));
        lines.push("COMMIT".to_owned());
        lines.join("\n") + "\n"
    }

    fn inbound(&self) -> Vec<String> {
        let target = format!("REDIRECT --to-ports {}", self.inbound_port);
        let mut lines = to_ports(INBOUND_CHAIN, &self.ignored_inbound, "RETURN");
        if self.redirected.is_empty() {
            lines.push(format!("-A {INBOUND_CHAIN} -p tcp -j {target}"));
        } else {
            lines.extend(to_ports(INBOUND_CHAIN, &self.redirected, &target));
        }
        lines
    }

    fn outbound(&self) -> Vec<String> {
        let mut lines = vec![
            // First, or what the proxy sends would come back to it for ever.
            format!("-A {OUTBOUND_CHAIN} -m owner --uid-owner {} -j RETURN", self.proxy_uid),
            format!("-A {OUTBOUND_CHAIN} -o lo -j RETURN"),
        ];
        lines.extend(to_ports(OUTBOUND_CHAIN, &self.ignored_outbound, "RETURN"));
        lines.push(format!("-A {OUTBOUND_CHAIN} -p tcp -j REDIRECT --to-ports {}", self.outbound_port));
        lines
    }
}

/// Whether rules of an earlier run are among those `present`.
pub(crate) fn are_ours(present: &str) -> bool {
    let declared = |chain: &str| present.lines().any(|line| line.starts_with(&format!(":{chain} ")));
    declared(INBOUND_CHAIN) || declared(OUTBOUND_CHAIN)
}

fn to_ports(chain: &str, ports: &[PortRange], target: &str) -> Vec<String> {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports.dedup();
    ports.into_iter().map(|ports| format!("-A {chain} -p tcp --dport {ports} -j {target}")).collect()
}

/// What leaves exactly one plain jump from `hook` to `chain`: nothing, if that is so already.
fn jump(present: &str, hook: &str, chain: &str) -> Vec<String> {
    let wanted = format!("-A {hook} -j {chain}");
    let (start, end) = (format!("-A {hook} "), format!(" -j {chain}"));
    let found: Vec<&str> =
        present.lines().filter(|line| line.starts_with(&start) && line.ends_with(&end)).collect();
    if found == [wanted.as_str()] {
        return Vec::new();
    }
    // Each is named as it was listed, which is how -D recognizes it.
    let mut lines: Vec<String> = found.iter().map(|line| line.replacen("-A", "-D", 1)).collect();
    lines.push(wanted);
    lines
}

/// One TCP port or several in a row, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortRange {
    first: NonZeroU16,
    last: NonZeroU16,
}

/// In iptables' own way of writing.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}:{}", self.first, self.last),
        }
    }
}

impl FromStr for PortRange {
    type Err = NotPorts;

    fn from_str(text: &str) -> Result<Self, NotPorts> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ends = port(first).and_then(|first| Ok(Self { first, last: port(last)? }));
        ends.ok().filter(|range| range.first <= range.last).ok_or(NotPorts)
    }
}

/// A port in decimal digits and nothing else.
pub(crate) fn port(text: &str) -> Result<NonZeroU16, NotAPort> {
    // FromStr of integers takes a sign as well.
    let digits = text.bytes().all(|octet| octet.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or(NotAPort)
}

/// The text is not a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("use a port from 1 to 65535")]
pub(crate) struct NotAPort;

/// The text is neither a port nor a range of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "use ports from 1 to 65535 separated by commas, or the first and the last of several, such as 8000-8010"
)]
pub(crate) struct NotPorts;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules() -> Rules {
        Rules {
            inbound_port: port("4143").expect("a port"),
            outbound_port: port("4140").expect("a port"),
            proxy_uid: 2102,
            redirected: Vec::new(),
            ignored_inbound: ranges("4190,4191"),
            ignored_outbound: Vec::new(),
        }
    }

    fn ranges(list: &str) -> Vec<PortRange> {
        list.split(',').map(|text| text.parse().expect("ports")).collect()
    }

    #[test]
    fn everything_is_redirected_but_what_must_not_be() {
        insta::assert_snapshot!(rules().restore_script(""));
    }

    #[test]
    fn only_listed_ports_are_redirected_when_there_is_a_list() {
        let rules = Rules {
            redirected: ranges("8080,80-90"),
            ignored_inbound: ranges("85,4191,4190,85"),
            ignored_outbound: ranges("3306,5432-5433"),
            ..rules()
        };
        insta::assert_snapshot!(rules.restore_script(""));
    }

    #[test]
    fn a_second_run_renews_the_chains_and_keeps_the_jumps() {
        let present = "\
*nat
:PREROUTING ACCEPT [0:0]
:CONDUIT_OUTPUT - [0:0]
:CONDUIT_REDIRECT - [0:0]
-A PREROUTING -j CONDUIT_REDIRECT
-A OUTPUT -j CONDUIT_OUTPUT
-A CONDUIT_REDIRECT -p tcp -j REDIRECT --to-ports 9999
COMMIT
";
        insta::assert_snapshot!(rules().restore_script(present));
    }

    #[test]
    fn jumps_in_another_form_are_replaced_by_one() {
        let present = "\
-A PREROUTING -m comment --comment \"conduit/install/1530000000\" -j CONDUIT_REDIRECT
-A PREROUTING -p udp -j ELSEWHERE
-A OUTPUT -j CONDUIT_OUTPUT
-A OUTPUT -j CONDUIT_OUTPUT
";
        insta::assert_snapshot!(rules().restore_script(present));
    }

    #[test]
    fn chains_of_an_earlier_run_are_recognized() {
        assert!(are_ours("*nat\n:OUTPUT ACCEPT [0:0]\n:CONDUIT_OUTPUT - [0:0]\nCOMMIT\n"));
        assert!(!are_ours("*nat\n:OUTPUT ACCEPT [0:0]\n:CONDUIT_OUTPUT_OTHER - [0:0]\nCOMMIT\n"));
        assert!(!are_ours(""));
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for bad in ["", "0", "65536", "+80", "-80", "80-", "90-80", "80-90-100", "80:90", " 80", "http"] {
            assert_eq!(bad.parse::<PortRange>(), Err(NotPorts), "{bad:?}");
        }
        assert_eq!("1-65535".parse::<PortRange>().expect("ports").to_string(), "1:65535");
        assert_eq!("80-80".parse::<PortRange>().expect("ports").to_string(), "80");
    }

    /// A nat table that understands as much of iptables-restore as scripts here use.
    #[derive(Debug, Clone, Default, PartialEq)]
    struct Table {
        chains: Vec<String>,
        lines: Vec<String>,
    }

    impl Table {
        fn restore(&mut self, script: &str) {
            for line in script.lines() {
                match line.split_once(' ') {
                    Some((declared, _)) if declared.starts_with(':') => self.declare(&declared[1..]),
                    Some(("-A", rule)) => self.lines.push(format!("-A {rule}")),
                    Some(("-D", rule)) => {
                        let position = self.lines.iter().position(|line| line[3..] == *rule);
                        self.lines.remove(position.expect("iptables fails for a rule that is not there"));
                    }
                    _ => assert!(["*nat", "COMMIT"].contains(&line), "{line}"),
                }
            }
        }

        fn declare(&mut self, chain: &str) {
            self.lines.retain(|line| !line.starts_with(&format!("-A {chain} ")));
            if !self.chains.iter().any(|known| known == chain) {
                self.chains.push(chain.to_owned());
            }
        }

        fn save(&self) -> String {
            let chains = self.chains.iter().map(|chain| format!(":{chain} - [0:0]\n"));
            let lines = self.lines.iter().map(|line| format!("{line}\n"));
            format!("*nat\n{}COMMIT\n", chains.chain(lines).collect::<String>())
        }

        fn count(&self, line: &str) -> usize {
            self.lines.iter().filter(|present| *present == line).count()
        }
    }

    /// Tables as others and earlier runs leave them.
    fn tables() -> impl Strategy<Value = Table> {
        let line = prop::sample::select(vec![
            "-A PREROUTING -j CONDUIT_REDIRECT",
            "-A PREROUTING -m comment --comment \"a b\" -j CONDUIT_REDIRECT",
            "-A PREROUTING -p tcp -m tcp --dport 80 -j CNI-HOSTPORT-DNAT",
            "-A OUTPUT -j CONDUIT_OUTPUT",
            "-A OUTPUT -p tcp -j CONDUIT_OUTPUT",
            "-A OUTPUT -j CONDUIT_OUTPUT_OTHER",
            "-A CONDUIT_OUTPUT -p tcp -j REDIRECT --to-ports 1",
            "-A CONDUIT_REDIRECT -p tcp -j REDIRECT --to-ports 2",
            "-A CNI-HOSTPORT-DNAT -j RETURN",
        ]);
        let lines = prop::collection::vec(line.prop_map(str::to_owned), 0..12);
        let chains = ["CONDUIT_OUTPUT", "CONDUIT_REDIRECT", "CNI-HOSTPORT-DNAT", "CONDUIT_OUTPUT_OTHER"];
        lines.prop_map(move |lines| Table { chains: chains.map(str::to_owned).to_vec(), lines })
    }

    fn some_rules() -> impl Strategy<Value = Rules> {
        let range = || {
            (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| {
                let port = |number| NonZeroU16::new(number).expect("from 1 on");
                PortRange { first: port(a.min(b)), last: port(a.max(b)) }
            })
        };
        let list = move || prop::collection::vec(range(), 0..4);
        (list(), list(), list()).prop_map(|(redirected, ignored_inbound, ignored_outbound)| Rules {
            redirected,
            ignored_inbound,
            ignored_outbound,
            ..rules()
        })
    }

    proptest! {
        #[test]
        fn the_second_run_changes_nothing(mut table in tables(), rules in some_rules()) {
            table.restore(&rules.restore_script(&table.save()));
            let once = table.clone();
            table.restore(&rules.restore_script(&table.save()));
            // Chains are listed by chain: the order of lines of different chains says nothing.
            table.lines.sort_by_key(|line| line.split(' ').nth(1).map(str::to_owned));
            let mut expected = once;
            expected.lines.sort_by_key(|line| line.split(' ').nth(1).map(str::to_owned));
            prop_assert_eq!(table, expected);
        }

        #[test]
        fn any_table_ends_with_one_jump_each_and_what_others_put_there(mut table in tables(), rules in some_rules()) {
            let others = |table: &Table| -> Vec<String> {
                let ours = |line: &&String| line.ends_with(INBOUND_CHAIN) || line.ends_with(OUTBOUND_CHAIN)
                    || line.starts_with("-A CONDUIT_OUTPUT ") || line.starts_with("-A CONDUIT_REDIRECT ");
                table.lines.iter().filter(|line| !ours(line)).cloned().collect()
            };
            let before = others(&table);
            table.restore(&rules.restore_script(&table.save()));
            prop_assert_eq!(table.count("-A PREROUTING -j CONDUIT_REDIRECT"), 1);
            prop_assert_eq!(table.count("-A OUTPUT -j CONDUIT_OUTPUT"), 1);
            prop_assert_eq!(table.lines.iter().filter(|line| line.ends_with("-j CONDUIT_OUTPUT")).count(), 1);
            prop_assert_eq!(others(&table), before);
            prop_assert!(!table.save().contains("--to-ports 1\n"), "a rule of an earlier run is left");
        }
    }
}
