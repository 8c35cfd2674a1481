//! The certificates themselves, as another parser reads them.

use conduit_ca::{Lifetimes, authority::Authority, rotation::Step, state::State};
use conduit_identity::{ControlPlane, Crypto, Identity};
use conduit_runtime::Seed;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::*;

use crate::world::{NOW, deployment};

fn made() -> (Authority, State) {
    let mut authority = Authority::new("conduit", &Crypto::shipped(), Lifetimes::default(), &Seed::fixed(1));
    let state = authority.step(&Step::Create { adopted: Vec::new() }, None, NOW).unwrap();
    let root = state.newest(NOW).unwrap().certificate.fingerprint;
    let state = authority.step(&Step::Issue { root }, Some(&state), NOW).unwrap();
    (authority, state)
}

/// Everything in a certificate but the random: what a reader would compare with a profile.
fn profile(der: &[u8]) -> String {
    let (rest, certificate) = parse_x509_certificate(der).unwrap();
    assert!(rest.is_empty());
    let hours = |time: ASN1Time| (time.timestamp() - i64::try_from(NOW.as_secs()).unwrap()) / 3600;
    let mut lines = vec![
        format!("version {}", certificate.version()),
        format!("subject {:?}", hide_number(&certificate.subject().to_string())),
        format!("issuer {:?}", hide_number(&certificate.issuer().to_string())),
        format!("serial of {} octets", certificate.raw_serial().len()),
        format!(
            "valid {} h to {} h",
            hours(certificate.validity().not_before),
            hours(certificate.validity().not_after)
        ),
        format!("key {}", certificate.public_key().algorithm.algorithm),
        format!("signature {}", certificate.signature_algorithm.algorithm),
    ];
    for extension in certificate.extensions() {
        let critical = if extension.critical { ", critical" } else { "" };
        let text = match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                format!(
                    "names {}",
                    names.general_names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                )
            }
            ParsedExtension::BasicConstraints(basic) => {
                format!("ca {}, path length {:?}", basic.ca, basic.path_len_constraint)
            }
            ParsedExtension::KeyUsage(usage) => format!("usage {usage}"),
            ParsedExtension::ExtendedKeyUsage(usage) => {
                assert!(usage.other.is_empty() && !usage.any);
                format!("extended usage server {}, client {}", usage.server_auth, usage.client_auth)
            }
            ParsedExtension::AuthorityKeyIdentifier(_) => "authority key id".to_owned(),
            ParsedExtension::SubjectKeyIdentifier(_) => "subject key id".to_owned(),
            other => panic!("unexpected {other:?}"),
        };
        lines.push(format!("{text}{critical}"));
    }
    lines.join("\n")
}

/// Names end in eight random digits.
fn hide_number(name: &str) -> &str {
    name.get(..name.len().saturating_sub(8)).unwrap_or_default()
}

fn ders(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}

#[test]
fn a_root_signs_issuers_for_ten_years() {
    let (_, state) = made();
    insta::assert_snapshot!(profile(&ders(&state.roots[0].certificate.pem)[0]));
}

#[test]
fn an_issuer_signs_leaves_for_a_year() {
    let (_, state) = made();
    insta::assert_snapshot!(profile(&ders(&state.issuer.unwrap().certificate.pem)[0]));
}

#[test]
fn a_leaf_has_its_names_and_both_uses_for_a_day() {
    let (mut authority, state) = made();
    let signer = authority.signer(&state).unwrap().unwrap();
    let control_plane = ControlPlane::default();
    let identity = Identity::of(&deployment("web"), &control_plane);
    let uri = deployment("web").spiffe(&control_plane);
    let leaf = authority.leaf(&signer, identity.as_str(), &uri, NOW).unwrap();
    let chain = ders(&leaf.chain);
    assert_eq!(chain.len(), 2, "the leaf, then its issuer, without the root");
    assert_eq!(chain[1], ders(&state.issuer.unwrap().certificate.pem)[0]);
    insta::assert_snapshot!(profile(&chain[0]));
    assert!(leaf.key.reveal().starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert!(!leaf.chain.contains('\r') && !leaf.key.reveal().contains('\r'));
}

#[test]
fn the_simulations_certificates_repeat() {
    let crypto = crate::world::crypto();
    let issue = || {
        let mut authority = Authority::new("conduit", &crypto, Lifetimes::default(), &Seed::fixed(7));
        let state = authority.step(&Step::Create { adopted: Vec::new() }, None, NOW).unwrap();
        let root = state.newest(NOW).unwrap().certificate.fingerprint;
        let state = authority.step(&Step::Issue { root }, Some(&state), NOW).unwrap();
        let signer = authority.signer(&state).unwrap().unwrap();
        authority.leaf(&signer, "a.example", "spiffe://example/a", NOW).unwrap().chain
    };
    assert_eq!(issue(), issue());
}
