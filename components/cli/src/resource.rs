//! What a command is about: TYPE or TYPE/NAME.

use std::ffi::OsStr;

use clap::{
    Arg, Command,
    builder::{PossibleValue, StringValueParser, TypedValueParser},
};
use conduit_observe::{kind::Kind, query::parse_resource};

/// Takes TYPE and TYPE/NAME as they are, and tells shells the types.
#[derive(Debug, Clone, Copy)]
pub struct ResourceParser;

impl TypedValueParser for ResourceParser {
    type Value = String;

    fn parse_ref(&self, cmd: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, clap::Error> {
        StringValueParser::new().try_map(resource).parse_ref(cmd, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        // The plural comes second.
        let plurals = Kind::ALL.into_iter().filter_map(|kind| kind.names().get(1));
        Some(Box::new(plurals.copied().chain(["all"]).map(PossibleValue::new)))
    }
}

/// The API would say the same, if there is one.
fn resource(text: String) -> Result<String, String> {
    match parse_resource("", &text) {
        Ok(_) => Ok(text),
        Err(invalid) => Err(invalid.remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_stay_as_they_are_written() {
        for good in ["deploy", "po/web-1", "ALL", "services"] {
            assert_eq!(resource(good.to_owned()).as_deref(), Ok(good));
        }
        for (bad, remedy) in [("widgets", "deployments"), ("deploy/", "TYPE/NAME"), ("all/x", "no name")] {
            assert!(resource(bad.to_owned()).is_err_and(|error| error.contains(remedy)), "{bad}");
        }
    }
}
