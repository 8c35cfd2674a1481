//! What names and labels may look like: RFC 1123 and RFC 1035, as Kubernetes words them.

use crate::resources::NameRule;

/// The longest label value and name segment, RFC 1123.
const LABEL_LIMIT: usize = 63;
/// The longest name, RFC 1123.
pub(crate) const NAME_LIMIT: usize = 253;

const LABEL_VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED_NAME_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SERVICE_RULE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

/// Why a name is refused, if it is.
pub(crate) fn wrong_name(rule: NameRule, name: &str) -> Option<String> {
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |name: &str| {
        !name.is_empty()
            && name.chars().all(|c| lower(c) || c == '-')
            && name.starts_with(lower)
            && name.ends_with(lower)
    };
    let (limit, valid, why) = match rule {
        NameRule::Subdomain => (NAME_LIMIT, name.split('.').all(label), SUBDOMAIN_RULE),
        NameRule::Label => (LABEL_LIMIT, label(name), LABEL_RULE),
        NameRule::ServiceLabel => {
            (LABEL_LIMIT, label(name) && name.starts_with(|c: char| c.is_ascii_lowercase()), SERVICE_RULE)
        }
        NameRule::Segment => {
            let valid = name != "." && name != ".." && !name.contains(['/', '%']);
            (usize::MAX, valid, "may not be '.' or '..' and may not contain '/' or '%'")
        }
    };
    if name.len() > limit {
        return Some(format!("must be no more than {limit} characters"));
    }
    (!valid).then(|| why.to_owned())
}

pub(crate) fn wrong_label_value(value: &str) -> Option<String> {
    if value.len() > LABEL_LIMIT {
        return Some(format!("must be no more than {LABEL_LIMIT} characters"));
    }
    (!value.is_empty() && !is_label_word(value)).then(|| LABEL_VALUE_RULE.to_owned())
}

/// A label key, annotation key or finalizer: a word, optionally with a DNS name and a slash in front.
pub(crate) fn wrong_qualified_name(key: &str) -> Option<String> {
    let (prefix, word) = match key.split_once('/') {
        Some((prefix, word)) => (Some(prefix), word),
        None => (None, key),
    };
    if word.is_empty() {
        return Some("name part must be non-empty".to_owned());
    }
    if word.len() > LABEL_LIMIT {
        return Some(format!("name part must be no more than {LABEL_LIMIT} characters"));
    }
    if let Some(why) = prefix.and_then(|prefix| wrong_name(NameRule::Subdomain, prefix)) {
        return Some(format!("prefix part {why}"));
    }
    (!is_label_word(word)).then(|| QUALIFIED_NAME_RULE.to_owned())
}

fn is_label_word(word: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let outer = |c: char| c.is_ascii_alphanumeric();
    word.chars().all(inner) && word.starts_with(outer) && word.ends_with(outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_held_to_dns_rules() {
        let long = "x".repeat(64);
        assert_eq!(wrong_name(NameRule::Subdomain, "web.v1-a"), None);
        assert_eq!(wrong_name(NameRule::Segment, "system:node"), None);
        assert_eq!(wrong_label_value(""), None);
        assert_eq!(wrong_label_value("a_b.C-1"), None);
        assert_eq!(wrong_qualified_name("conduit.io/proxy-deployment"), None);
        for (rule, name) in [
            (NameRule::Subdomain, "Web"),
            (NameRule::Subdomain, "a..b"),
            (NameRule::Subdomain, "-a"),
            (NameRule::Label, "a.b"),
            (NameRule::Label, &long),
            (NameRule::ServiceLabel, "1a"),
            (NameRule::Segment, "a/b"),
        ] {
            assert!(wrong_name(rule, name).is_some(), "{name}");
        }
        for value in ["-a", "a b", "a/b", &long] {
            assert!(wrong_label_value(value).is_some(), "{value}");
        }
        for key in ["", "a/", "/a", "A_/x", "a b"] {
            assert!(wrong_qualified_name(key).is_some(), "{key}");
        }
    }
}
