//! A history in which nothing is wrong, for tests to spoil.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use conduit_identity::UnixTime;

use super::Violation;
use crate::{
    history::{
        Arrival, Held, Op, OpId, Outcome, PodLife, Protocol, Reading, Run, Sidecar, StatRow, TapEvent,
        Trusted, WireConnection, WireKind,
    },
    testing::ms,
};

/// The client of [`good`].
pub(crate) const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// The server of [`good`].
pub(crate) const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
/// Operations of [`good`], one a second from second 30 on.
pub(crate) const OPS: u32 = 30;

/// The identity of the deployment `name`.
pub(crate) fn name(name: &str) -> String {
    format!("{name}.deployment.shop.conduit-managed.conduit.svc.cluster.local")
}

/// A pod of the workload `shop/<owner>` that can do TLS from the start.
pub(crate) fn pod(ip: IpAddr, owner: &str) -> PodLife {
    PodLife {
        ip,
        name: format!("{owner}-1"),
        workload: format!("shop/{owner}"),
        sidecar: Sidecar::Tls,
        identity: Some(name(owner)),
        from: ms(0),
        until: None,
        outages: Vec::new(),
        credentials: vec![Held {
            from: ms(0),
            until: None,
            identity: name(owner),
            root: "root-1".into(),
            not_before: UnixTime::from_secs(1_799_990_000),
            not_after: UnixTime::from_secs(1_800_090_000),
            matches_key: true,
        }],
        trusted: vec![Trusted { root: "root-1".into(), from: ms(0), until: None }],
        skew: Vec::new(),
    }
}

pub(crate) fn id(number: u32) -> OpId {
    OpId { client: 1, stream: 0, number }
}

/// A mesh connection from [`A`] to [`B`].
pub(crate) fn mesh(id: u64, opened: u64) -> WireConnection {
    WireConnection {
        id,
        client: SocketAddr::new(A, 40_000),
        server: SocketAddr::new(B, Protocol::Http1.port()),
        opened: ms(opened),
        closed: None,
        kind: WireKind::Mesh,
        sni: Some(name("api")),
        first_application_byte: Some(ms(opened + 5)),
        agreed: None,
        bytes: (5_000, 5_000),
        markers: Vec::new(),
        broken_by_fault: None,
        whole_since: None,
        is_late: false,
    }
}

/// The same in plaintext.
pub(crate) fn plain(id: u64, opened: u64) -> WireConnection {
    WireConnection { kind: WireKind::Plaintext, sni: None, ..mesh(id, opened) }
}

/// What a proxy shows that counted `tls` connections of either kind, and requests.
pub(crate) fn reading(pod: IpAddr, at: u64, text: &str) -> Reading {
    Reading::parse(ms(at), pod, ms(0), text)
}

/// Two minutes in which the client asks 30 times over one connection, and all is well.
pub(crate) fn good() -> Run {
    let mut run = Run {
        wire: vec![mesh(1, 30_000)],
        pods: vec![pod(A, "web"), pod(B, "api")],
        services: [("shop/api-svc".to_owned(), ["shop/api".to_owned()].into())].into(),
        epoch: UnixTime::from_secs(1_800_000_000),
        clock_speed: 1,
        ended: ms(120_000),
        ..Run::default()
    };
    for number in 0..OPS {
        ask(&mut run, id(number), 30_010 + 1_000 * u64::from(number));
    }
    let (web, api) = (name("web"), name("api"));
    let client = format!(
        "tcp_open_total{{direction=\"outbound\",peer=\"dst\",dst_pod=\"api-1\",tls=\"true\",client_id=\"{web}\",server_id=\"{api}\"}} 1\n\
         tcp_open_total{{direction=\"outbound\",peer=\"src\",tls=\"internal_traffic\"}} 1\n\
         request_total{{authority=\"api-svc\",direction=\"outbound\",tls=\"true\",client_id=\"{web}\",server_id=\"{api}\"}} {OPS}\n"
    );
    let server = format!(
        "tcp_open_total{{direction=\"inbound\",peer=\"src\",tls=\"true\",client_id=\"{web}\",server_id=\"{api}\"}} 1\n\
         tcp_open_total{{direction=\"inbound\",peer=\"dst\",tls=\"loopback\"}} 1\n\
         tls_handshake_total{{direction=\"inbound\",result=\"success\"}} 1\n\
         request_total{{authority=\"api-svc\",direction=\"inbound\",tls=\"true\",client_id=\"{web}\",server_id=\"{api}\"}} {OPS}\n"
    );
    run.readings = vec![reading(A, 90_000, &client), reading(B, 90_000, &server)];
    run.stat = vec![StatRow {
        at: ms(90_000),
        window: ms(60_000),
        kind: "deployment".into(),
        name: "shop/api".into(),
        tls: Some(1.0),
        success: Some(1.0),
    }];
    run.taps = vec![TapEvent { at: ms(40_020), op: id(10), tls: "true".into() }];
    run
}

/// The same without Conduit.
pub(crate) fn baseline() -> Run {
    let mut run = good();
    run.wire = vec![plain(1, 30_000)];
    run.readings.clear();
    run.stat.clear();
    run.taps.clear();
    run.pods.iter_mut().for_each(|pod| pod.sidecar = Sidecar::Absent);
    run
}

/// An operation from [`A`] that reaches [`B`], and is answered 20 ms after its start.
pub(crate) fn ask(run: &mut Run, id: OpId, started: u64) {
    let op = Op {
        client: A,
        service: "shop/api-svc".into(),
        protocol: Protocol::Http1,
        started: ms(started),
        ended: Some(ms(started + 20)),
        outcome: Outcome::Answered,
        deadline: ms(5_000),
    };
    run.ops.asked.insert(id, op);
    run.ops.arrived.push(Arrival {
        op: id,
        server: B,
        workload: "shop/api".into(),
        protocol: Protocol::Http1,
        at: ms(started + 10),
        intact: true,
    });
}

/// The operation `number` of a run.
pub(crate) fn op(run: &mut Run, number: u32) -> &mut Op {
    run.ops.asked.get_mut(&id(number)).unwrap()
}

/// Fails unless there is a violation, and every one says `expected`.
#[track_caller]
pub(crate) fn assert_says(violations: &[Violation], expected: &str) {
    assert!(!violations.is_empty(), "nothing was found, expected: {expected}");
    for violation in violations {
        assert!(violation.what.contains(expected), "{violation}\n  does not say: {expected}");
    }
}
