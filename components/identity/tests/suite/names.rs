//! Names are total, injective and read back.

use crate::support::deployment;
use conduit_identity::{ControlPlane, Identity, Workload, WorkloadKind};
use proptest::{prelude::*, sample::select};

const DIGITS_63: &str = "a12345678901234567890123456789012345678901234567890123456789012";

fn kind() -> impl Strategy<Value = WorkloadKind> {
    select(WorkloadKind::ALL.to_vec())
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        Just("conduit-managed".to_owned()),
        Just("deployment".to_owned()),
        Just("conduit-hash-00112233445566778899aabbccddeeff".to_owned()),
    ]
}

/// Anything Kubernetes takes as an object's name.
fn object_name() -> impl Strategy<Value = String> {
    prop::collection::vec(label(), 1..5)
        .prop_map(|labels| labels.join("."))
        .prop_filter("too long", |n| n.len() <= 253)
}

fn workload() -> impl Strategy<Value = Workload> {
    (label(), kind(), object_name()).prop_map(|(namespace, kind, name)| Workload { namespace, kind, name })
}

fn control_plane() -> impl Strategy<Value = ControlPlane> {
    let trust_domain = prop_oneof![Just("svc.cluster.local".to_owned()), object_name()];
    (label(), trust_domain).prop_map(|(namespace, trust_domain)| ControlPlane { namespace, trust_domain })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_workload_has_a_valid_identity(workload in workload(), control_plane in control_plane()) {
        let identity = Identity::of(&workload, &control_plane);
        prop_assert_eq!(Identity::parse(identity.as_str()), Ok(identity.clone()));
        prop_assert!(rustls_pki_types::DnsName::try_from(identity.to_string()).is_ok());
    }

    #[test]
    fn even_nonsense_has_a_valid_identity(namespace: String, name: String, cp: (String, String), kind in kind()) {
        let workload = Workload { namespace, kind, name };
        let control_plane = ControlPlane { namespace: cp.0, trust_domain: cp.1 };
        let identity = Identity::of(&workload, &control_plane);
        prop_assert_eq!(Identity::parse(identity.as_str()), Ok(identity));
    }

    #[test]
    fn a_literal_identity_reads_back(workload in workload(), control_plane in control_plane()) {
        let identity = Identity::of(&workload, &control_plane);
        if let Some(read) = identity.workload_in(&control_plane) {
            prop_assert_eq!(read, workload);
            prop_assert!(identity.belongs_to(&control_plane));
        } else {
            prop_assert!(identity.as_str().starts_with("conduit-hash-"), "{}", identity);
        }
    }

    #[test]
    fn distinct_workloads_have_distinct_names(a in workload(), b in workload(), control_plane in control_plane()) {
        prop_assume!(a != b);
        prop_assert_ne!(Identity::of(&a, &control_plane), Identity::of(&b, &control_plane));
        prop_assert!(a.namespace != b.namespace || a.secret_name() != b.secret_name());
    }

    #[test]
    fn label_values_and_secret_names_are_accepted_by_kubernetes(workload in workload()) {
        prop_assert!(workload.label_value().len() <= 63);
        prop_assert!(workload.secret_name().len() <= 253);
        let prefix = format!("{}-{}-", workload.label_value(), workload.kind);
        prop_assert!(workload.secret_name().starts_with(&prefix));
    }

    #[test]
    fn reading_any_text_does_not_panic(text: String) {
        if let Ok(identity) = Identity::parse(&text) {
            let _ = (identity.workload(), identity.workload_in(&ControlPlane::default()));
        }
    }
}

#[test]
fn a_plain_owner_is_written_literally() {
    let workload = deployment("emojivoto", "web");
    let control_plane = ControlPlane::default();
    let identity = Identity::of(&workload, &control_plane);
    assert_eq!(identity.as_str(), "web.deployment.emojivoto.conduit-managed.conduit.svc.cluster.local");
    assert_eq!(identity.workload(), Some(workload.clone()));
    assert_eq!(workload.secret_name(), "web-deployment-tls-conduit-io");
    assert_eq!(workload.label_value(), "web");
    assert_eq!(workload.spiffe(&control_plane), "spiffe://svc.cluster.local/ns/emojivoto/deployment/web");
}

#[test]
fn a_dotted_owner_reads_back_from_the_right() {
    let workload = deployment("shop", "web.v2.conduit-managed.pod.x");
    let identity = Identity::of(&workload, &ControlPlane::default());
    assert_eq!(identity.workload(), Some(workload));
}

#[test]
fn an_owner_over_63_octets_takes_one_hash_form_everywhere() {
    let control_plane = ControlPlane::default();
    let fits = deployment("shop", DIGITS_63);
    assert_eq!(fits.label_value(), DIGITS_63);
    let long = deployment("shop", &format!("{DIGITS_63}x"));
    let form = "conduit-hash-3e666d7c05c7e19820c127825559a02d";
    assert_eq!(long.label_value(), form, "what is deployed must go on being found");
    assert_eq!(long.secret_name(), format!("{form}-deployment-tls-conduit-io"));
    let identity = Identity::of(&long, &control_plane);
    assert_eq!(
        identity.as_str(),
        format!("{form}.deployment.shop.conduit-managed.conduit.svc.cluster.local")
    );
    assert!(identity.belongs_to(&control_plane));
    assert_eq!(identity.workload(), None);
    assert!(long.spiffe(&control_plane).ends_with(&long.name), "a URI has room for the whole owner");
}

#[test]
fn an_owner_that_looks_like_a_hash_form_cannot_stand_for_another() {
    let long = deployment("shop", &format!("{DIGITS_63}x"));
    let impostor = deployment("shop", &long.label_value());
    assert_ne!(impostor.label_value(), long.label_value());
}

#[test]
fn a_whole_over_253_octets_still_belongs_to_its_control_plane() {
    let control_plane =
        ControlPlane { namespace: DIGITS_63.into(), trust_domain: format!("{DIGITS_63}.{}", "d".repeat(31)) };
    let identity = Identity::of(&deployment(DIGITS_63, "web"), &control_plane);
    assert!(identity.as_str().len() <= 253, "{identity}");
    assert!(identity.belongs_to(&control_plane));
}

#[test]
fn a_namespace_with_dots_cannot_pose_as_another() {
    let control_plane = ControlPlane::default();
    let odd = Workload { namespace: "pod.shop".into(), kind: WorkloadKind::Deployment, name: "web".into() };
    assert_eq!(Identity::of(&odd, &control_plane).workload_in(&control_plane), None);
}

#[test]
fn another_control_planes_identity_does_not_belong_here() {
    let theirs = ControlPlane { namespace: "other".into(), ..ControlPlane::default() };
    let identity = Identity::of(&deployment("shop", "web"), &theirs);
    assert!(!identity.belongs_to(&ControlPlane::default()));
    assert_eq!(identity.workload_in(&ControlPlane::default()), None);
}

#[test]
fn what_is_no_lower_case_dns_name_is_refused() {
    for name in ["", ".", "a.", ".a", "A.b", "a..b", "-a.b", "a-.b", "a b", "10.0.0.1", "ä.b", "*.shop"] {
        assert!(Identity::parse(name).is_err(), "{name:?}");
    }
    assert!(Identity::parse(&format!("{DIGITS_63}.b")).is_ok());
    assert!(Identity::parse(&format!("{DIGITS_63}x.b")).is_err());
}
