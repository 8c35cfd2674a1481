//! The environment as a typed table: each variable is parsed where it is declared, and every bad value is reported at
//! once, with the remedy, so that a deployment is corrected in one go.

use std::{collections::BTreeMap, fmt, net::SocketAddr, str::FromStr, time::Duration};

/// The variables of a process, and what was found wrong with them so far.
#[derive(Debug, Default)]
pub struct Env {
    values: BTreeMap<String, String>,
    problems: Vec<Problem>,
}

/// One variable that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The variable.
    pub name: String,
    /// Its value, if it has one.
    pub value: Option<String>,
    /// What is expected.
    pub expected: String,
}

/// Everything that was wrong.
#[derive(Debug, thiserror::Error)]
pub struct Invalid(pub Vec<Problem>);

impl Env {
    /// The variables of this process.
    pub fn from_process() -> Self {
        // A name or value that is not UTF-8 is no variable of ours; its lossy form fails in its parser.
        let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
        Self::from_pairs(std::env::vars_os().map(|(name, value)| (text(name), text(value))))
    }

    /// The given variables, for tests and for parts that are not a process of their own.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let values = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { values, problems: Vec::new() }
    }

    /// The value of `name` as `parser` reads it. None when it is absent or empty, and also when it is unusable, which
    /// [`Env::finish`] then reports.
    pub fn parse<T>(&mut self, name: &str, parser: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.values.get(name).filter(|value| !value.is_empty())?;
        self.parse_even_empty(name, parser)
    }

    /// As [`Env::parse`], but an empty value is a value: of a list that has a default, and may be of nothing.
    pub fn parse_even_empty<T>(
        &mut self,
        name: &str,
        parser: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.values.get(name)?;
        match parser(value) {
            Ok(parsed) => Some(parsed),
            Err(expected) => {
                let (name, value) = (name.to_owned(), Some(value.clone()));
                self.problems.push(Problem { name, value, expected });
                None
            }
        }
    }

    /// As [`Env::parse`], but an absent variable is reported too.
    pub fn required<T>(&mut self, name: &str, parser: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        if self.values.get(name).is_none_or(String::is_empty) {
            let expected = "it must be set".to_owned();
            self.problems.push(Problem { name: name.to_owned(), value: None, expected });
            return None;
        }
        self.parse(name, parser)
    }

    /// Whether `name` has a value.
    pub fn is_set(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| !value.is_empty())
    }

    /// # Errors
    /// Every problem met so far, in the order of the declarations.
    pub fn finish(self) -> Result<(), Invalid> {
        if self.problems.is_empty() { Ok(()) } else { Err(Invalid(self.problems)) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value:?}: {}", self.name, self.expected),
            None => write!(f, "{}: {}", self.name, self.expected),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the environment is not usable")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// Any text.
///
/// # Errors
/// None; it has the shape of a parser.
pub fn text(value: &str) -> Result<String, String> {
    Ok(value.to_owned())
}

/// `true` or `false`.
///
/// # Errors
/// Says what is expected.
pub fn boolean(value: &str) -> Result<bool, String> {
    value.trim().parse().map_err(|_| "expected true or false".to_owned())
}

/// A number of the wanted type.
///
/// # Errors
/// Says what is expected.
pub fn number<T: FromStr>(value: &str) -> Result<T, String> {
    let bits = 8 * size_of::<T>();
    value.trim().parse().map_err(|_| format!("expected a whole number that fits {bits} bits"))
}

/// A duration: a whole number and one of `ms s m h d` without a gap, or `0`.
///
/// # Errors
/// Says what is expected.
pub fn duration(value: &str) -> Result<Duration, String> {
    let expected =
        || "expected a whole number and a unit of ms, s, m, h or d, such as 10s or 500ms".to_owned();
    let value = value.trim();
    if value == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = value.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
    let (amount, unit) = value.split_at(digits);
    let amount: u64 = amount.parse().map_err(|_| expected())?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(expected()),
    };
    amount
        .checked_mul(unit_ms)
        .map(Duration::from_millis)
        .ok_or_else(|| "the duration is too long".to_owned())
}

/// A listener's address, `tcp://IP:port`.
///
/// # Errors
/// Says what is expected.
pub fn listen(value: &str) -> Result<SocketAddr, String> {
    let expected = || "expected tcp:// and an IP address with a port, such as tcp://0.0.0.0:4143".to_owned();
    let rest = value.trim().strip_prefix("tcp://").ok_or_else(expected)?;
    rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_| expected())
}

/// A place to connect to, `tcp://host:port`: the host is a name or an IP address, IPv6 in brackets.
///
/// # Errors
/// Says what is expected.
pub fn target(value: &str) -> Result<(String, u16), String> {
    let expected =
        || "expected tcp:// and a host with a port, such as tcp://destination.conduit:8086".to_owned();
    let rest = value.trim().strip_prefix("tcp://").ok_or_else(expected)?;
    let (host, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':').ok_or_else(expected)?;
    let port = port.parse().map_err(|_| expected())?;
    let host_is_sound =
        host.starts_with('[') == host.ends_with(']') && (host.starts_with('[') || !host.contains(':'));
    if host.is_empty() || !host_is_sound {
        return Err(expected());
    }
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_bad_value_is_reported_at_once() {
        let mut env = Env::from_pairs([("A", "1.5s"), ("B", "tcp://localhost:1"), ("C", "7"), ("E", "")]);
        assert_eq!(env.parse("A", duration), None);
        assert_eq!(env.parse("B", listen), None);
        assert_eq!(env.parse("C", number::<u16>), Some(7));
        assert_eq!(env.required("D", text), None);
        assert_eq!(env.parse("E", number::<u16>), None);
        insta::assert_snapshot!(env.finish().unwrap_err(), @r#"
        the environment is not usable
          A="1.5s": expected a whole number and a unit of ms, s, m, h or d, such as 10s or 500ms
          B="tcp://localhost:1": expected tcp:// and an IP address with a port, such as tcp://0.0.0.0:4143
          D: it must be set
        "#);
    }

    #[test]
    fn an_empty_value_is_one_only_where_that_makes_sense() {
        let mut env = Env::from_pairs([("A", "")]);
        assert_eq!(env.parse("A", text), None);
        assert_eq!(env.parse_even_empty("A", text), Some(String::new()));
        assert_eq!(env.parse_even_empty("B", text), None);
        assert!(!env.is_set("A"));
    }

    #[test]
    fn durations_follow_the_grammar() {
        for (text, expected_ms) in
            [("0", 0), ("20ms", 20), (" 10s ", 10_000), ("5m", 300_000), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(expected_ms)), "{text}");
        }
        for text in
            ["", "10", "1.5s", "1 s", "s", "-1s", "1m30s", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn targets_keep_names_and_addresses() {
        assert_eq!(target("tcp://destination.conduit:8086"), Ok(("destination.conduit".into(), 8086)));
        assert_eq!(target("tcp://[::1]:8086/"), Ok(("::1".into(), 8086)));
        for text in ["destination:1", "tcp://host", "tcp://:1", "tcp://::1:1", "tcp://host:70000"] {
            assert!(target(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC*") {
            drop((duration(&text), listen(&text), target(&text), boolean(&text), number::<u16>(&text)));
        }
    }
}
