use proptest::prelude::*;

use super::*;

fn message(kind: kinds::Match) -> proto::Match {
    proto::Match { r#match: Some(kind) }
}

fn read(kind: kinds::Match) -> Result<Condition, Invalid> {
    Condition::read(Some(&message(kind)))
}

fn network(text: &str) -> kinds::Tcp {
    kinds::Tcp { r#match: Some(kinds::tcp::Match::Network(text.into())) }
}

fn ports(min: u32, max: u32) -> kinds::Tcp {
    kinds::Tcp { r#match: Some(kinds::tcp::Match::Ports(kinds::PortRange { min, max })) }
}

fn http(kind: kinds::http::Match) -> kinds::Match {
    kinds::Match::Http(kinds::Http { r#match: Some(kind) })
}

fn text(kind: kinds::string_match::Match) -> kinds::StringMatch {
    kinds::StringMatch { r#match: Some(kind) }
}

fn label(key: &str, value: &str) -> kinds::Match {
    kinds::Match::DestinationLabel(kinds::Label { key: key.into(), value: value.into() })
}

fn facts(labels: &Labels) -> Facts<'_> {
    Facts {
        source: "10.1.2.3:5000".parse().unwrap(),
        destination: "[::ffff:10.9.8.7]:80".parse().unwrap(),
        labels,
        tls: "no_identity",
        scheme: "http",
        method: "GET",
        authority: "Web.emojivoto:80",
        path: "/api/vote",
    }
}

fn holds(kind: kinds::Match) -> bool {
    let labels = [("pod".to_owned(), "web-1".to_owned())].into_iter().collect();
    read(kind).unwrap().holds(&facts(&labels))
}

#[test]
fn conditions_hold_for_what_they_name() {
    use kinds::{http::Match as H, string_match::Match as S};
    let table = [
        (label("tls", "no_identity"), true),
        (label("tls", "true"), false),
        (kinds::Match::Source(network("10.1.0.0/16")), true),
        (kinds::Match::Source(network("10.1.2.3/32")), true),
        (kinds::Match::Source(network("10.2.0.0/16")), false),
        (kinds::Match::Source(network("::/1")), false),
        (kinds::Match::Destination(network("10.9.8.0/24")), true),
        (kinds::Match::Destination(ports(80, 0)), true),
        (kinds::Match::Destination(ports(79, 81)), true),
        (kinds::Match::Destination(ports(81, 90)), false),
        (kinds::Match::Source(ports(5000, 5000)), true),
        (label("pod", "web-1"), true),
        (label("pod", "web-2"), false),
        (label("deployment", "web-1"), false),
        (http(H::Scheme("HTTP".into())), true),
        (http(H::Scheme("https".into())), false),
        (http(H::Method("GET".into())), true),
        (http(H::Method("get".into())), false),
        (http(H::Authority(text(S::Exact("web.emojivoto:80".into())))), true),
        (http(H::Authority(text(S::Prefix("web.".into())))), true),
        (http(H::Authority(text(S::Prefix("vote.".into())))), false),
        (http(H::Path(text(S::Exact("/api".into())))), false),
        (http(H::Path(text(S::Prefix("/api".into())))), true),
        (kinds::Match::Not(Box::new(message(label("pod", "web-1")))), false),
    ];
    for (kind, expected) in table {
        assert_eq!(holds(kind.clone()), expected, "{kind:?}");
    }
}

#[test]
fn all_any_and_their_empty_forms() {
    let (yes, no) = (message(label("pod", "web-1")), message(label("pod", "web-2")));
    let seq = |matches: &[proto::Match]| kinds::Seq { matches: matches.to_vec() };
    assert!(holds(kinds::Match::All(seq(&[yes.clone(), yes.clone()]))));
    assert!(!holds(kinds::Match::All(seq(&[yes.clone(), no.clone()]))));
    assert!(holds(kinds::Match::Any(seq(&[no.clone(), yes]))));
    assert!(!holds(kinds::Match::Any(seq(&[no]))));
    assert!(holds(kinds::Match::All(seq(&[]))));
    assert!(!holds(kinds::Match::Any(seq(&[]))));
}

#[test]
fn senseless_conditions_are_refused() {
    assert_eq!(Condition::read(None), Err(Invalid::Missing));
    assert_eq!(Condition::read(Some(&proto::Match { r#match: None })), Err(Invalid::Missing));
    for bad in ["10.0.0.0", "10.0.0.0/0", "10.0.0.0/33", "fd00::/129", "x/8", "10.0.0.0/-1", ""] {
        assert_eq!(read(kinds::Match::Source(network(bad))), Err(Invalid::Network(bad.into())));
    }
    for (min, max) in [(0, 0), (0, 80), (65_536, 0), (80, 79), (80, 65_536)] {
        assert_eq!(read(kinds::Match::Source(ports(min, max))), Err(Invalid::Ports { min, max }));
    }
    assert_eq!(read(label("", "x")), Err(Invalid::Label));
    assert_eq!(read(label("x", "")), Err(Invalid::Label));
    assert_eq!(read(kinds::Match::Http(kinds::Http { r#match: None })), Err(Invalid::Missing));
}

#[test]
fn conditions_are_bounded_in_depth_and_number() {
    let nested = |depth: usize| {
        (1..depth).fold(message(label("a", "b")), |inner, _| message(kinds::Match::Not(Box::new(inner))))
    };
    assert!(Condition::read(Some(&nested(MAX_DEPTH))).is_ok());
    assert_eq!(Condition::read(Some(&nested(MAX_DEPTH + 1))), Err(Invalid::TooLarge));
    let many = |count| kinds::Match::All(kinds::Seq { matches: vec![message(label("a", "b")); count] });
    assert!(read(many(MAX_CONDITIONS - 1)).is_ok());
    assert_eq!(read(many(MAX_CONDITIONS)), Err(Invalid::TooLarge));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_network_holds_the_addresses_that_share_its_bits(ip in any::<u32>(), other in any::<u32>(), bits in 1..=32_u8) {
        let tcp = Tcp::Network { ip: IpAddr::V4(ip.into()), bits };
        let same = (ip ^ other).leading_zeros() >= u32::from(bits);
        prop_assert_eq!(tcp.holds(SocketAddr::new(IpAddr::V4(other.into()), 1)), same);
    }

    #[test]
    fn whatever_text_is_given_as_a_network_is_judged_without_a_panic(network_text in ".{0,80}") {
        drop(read(kinds::Match::Source(network(&network_text))));
    }
}
