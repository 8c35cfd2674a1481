use super::*;
use crate::{
    check::testing::{A, B, OPS, ask, assert_says, good, id, mesh, name, op, plain, reading},
    history::{Reading, Sidecar, WireConnection, WireKind},
    testing::ms,
};

/// The metrics of `pod` in the reading of [`good`], with one text replaced by another.
fn reread(run: &mut Run, pod: IpAddr, edit: impl Fn(&mut Reading)) {
    run.readings.iter_mut().filter(|reading| reading.pod == pod).for_each(edit);
}

fn set(reading: &mut Reading, name: &str, tls: &str, value: u64) {
    let counter = reading.counters.iter_mut().find(|c| c.name == name && c.label("tls") == Some(tls));
    counter.unwrap().value = value;
}

fn relabel(reading: &mut Reading, name: &str, tls: &str) {
    let counter =
        reading.counters.iter_mut().find(|c| c.name == name && c.label("tls") == Some("true")).unwrap();
    counter.labels.insert("tls".into(), tls.into());
    counter.labels.retain(|key, _| !key.ends_with("_id"));
}

/// Every operation in the clear.
fn in_the_clear(run: &mut Run) {
    run.wire = vec![plain(1, 30_000)];
    run.wire[0].markers =
        (0..OPS).map(|number| (id(number), ms(30_015 + 1_000 * u64::from(number)))).collect();
}

#[test]
fn numbers_that_agree_with_the_wire_are_right() {
    assert_eq!(check(&good()), []);
}

#[test]
fn plaintext_that_is_counted_as_such_is_right() {
    let mut run = good();
    in_the_clear(&mut run);
    for (pod, tls) in [(A, "handshake_failed"), (B, "no_proxy_tls")] {
        reread(&mut run, pod, |reading| {
            relabel(reading, "tcp_open_total", tls);
            relabel(reading, "request_total", tls);
        });
    }
    run.taps[0].tls = "handshake_failed".into();
    run.stat[0].tls = Some(0.0);
    assert_eq!(check(&run), []);
}

#[test]
fn too_many_and_too_few_connections_are_found_on_both_ends() {
    for (pod, expected) in [(A, "web-1 outbound"), (B, "api-1 inbound")] {
        for value in [0, 2] {
            let mut run = good();
            reread(&mut run, pod, |reading| set(reading, "tcp_open_total", "true", value));
            let violations = check(&run);
            assert_says(&violations, &format!("{expected}: 1 connections of mutual TLS"));
            assert_says(&violations, &format!("on the wire, {value} in its metrics"));
        }
    }
}

#[test]
fn plaintext_that_is_counted_as_tls_is_found_and_so_is_the_reverse() {
    for (pod, tls) in [(A, "handshake_failed"), (B, "no_proxy_tls")] {
        let mut run = good();
        run.wire[0].kind = WireKind::Plaintext;
        run.wire[0].sni = None;
        let says = |run: &Run, expected: &str| {
            assert!(
                check(run).iter().any(|violation| violation.what.contains(expected)),
                "{:#?}",
                check(run)
            );
        };
        says(&run, "0 connections of mutual TLS on the wire, 1 in its metrics");
        says(&run, "1 connections of plaintext on the wire, 0 in its metrics");

        let mut run = good();
        reread(&mut run, pod, |reading| relabel(reading, "tcp_open_total", tls));
        says(&run, "1 connections of mutual TLS on the wire, 0 in its metrics");
        says(&run, "0 connections of plaintext on the wire, 1 in its metrics");
    }
}

#[test]
fn the_application_s_own_tls_that_is_called_something_else_is_found() {
    let mut run = good();
    run.wire.push(WireConnection {
        kind: WireKind::AppTls,
        sni: Some("shop.example.com".into()),
        ..mesh(2, 40_000)
    });
    let inbound =
        |tls: &str| format!("tcp_open_total{{direction=\"inbound\",peer=\"src\",tls=\"{tls}\"}} 1\n");
    let outbound = "tcp_open_total{direction=\"outbound\",peer=\"dst\",tls=\"app_tls\"} 1\n";
    reread(&mut run, A, |read| read.counters.extend(reading(A, 0, outbound).counters));
    let mut wrong = run.clone();
    reread(&mut run, B, |read| read.counters.extend(reading(B, 0, &inbound("app_tls")).counters));
    assert_eq!(check(&run), []);
    reread(&mut wrong, B, |read| read.counters.extend(reading(B, 0, &inbound("no_proxy_tls")).counters));
    assert_says(
        &check(&wrong),
        "api-1 inbound: 1 connections of the application's own TLS on the wire, 0 in",
    );
}

#[test]
fn connections_to_one_peer_that_are_counted_for_another_are_found() {
    let mut run = good();
    let stranger = name("stranger");
    reread(&mut run, A, |reading| {
        reading.counters[0].labels.insert("server_id".into(), stranger.clone());
    });
    assert_says(&check(&run), &format!("0 connections of mutual TLS to {stranger} on the wire, 1"));

    let mut run = good();
    in_the_clear(&mut run);
    run.stat.clear();
    run.taps.clear();
    reread(&mut run, B, |reading| {
        relabel(reading, "tcp_open_total", "no_proxy_tls");
        relabel(reading, "request_total", "no_proxy_tls");
    });
    reread(&mut run, A, |reading| {
        relabel(reading, "request_total", "no_identity");
        relabel(reading, "tcp_open_total", "no_identity");
        reading.counters[0].labels.insert("dst_pod".into(), "db-1".into());
    });
    assert_says(&check(&run), "0 connections of plaintext to db-1 on the wire, 1");
}

#[test]
fn what_is_too_close_to_the_reading_or_broken_may_or_may_not_be_counted() {
    let close: [fn(&mut WireConnection); 3] = [
        |connection| connection.opened = ms(89_800),
        |connection| connection.opened = ms(90_200),
        |connection| connection.broken_by_fault = Some(ms(50_000)),
    ];
    for (number, close) in close.into_iter().enumerate() {
        let mut run = good();
        run.wire.push(mesh(2, 40_000));
        close(&mut run.wire[1]);
        assert_eq!(check(&run), [], "case {number}, not counted");
        for pod in [A, B] {
            reread(&mut run, pod, |reading| set(reading, "tcp_open_total", "true", 2));
        }
        assert_eq!(check(&run), [], "case {number}, counted");
    }
    let mut run = good();
    run.wire.push(mesh(2, 90_251));
    assert_eq!(check(&run), []);
    reread(&mut run, A, |reading| set(reading, "tcp_open_total", "true", 2));
    assert!(!check(&run).is_empty());
}

#[test]
fn series_that_were_dropped_and_came_back_count_on() {
    let mut run = good();
    run.wire.push(mesh(2, 100_000));
    let mut later = run.readings.clone();
    later.iter_mut().for_each(|reading| reading.at = ms(119_000));
    let dropped: Vec<_> = run
        .readings
        .iter()
        .map(|reading| Reading { at: ms(95_000), counters: Vec::new(), ..*reading })
        .collect();
    later.iter_mut().for_each(|reading| reading.counters.retain(|counter| counter.name == "tcp_open_total"));
    run.readings.extend(dropped);
    run.readings.extend(later);
    assert_eq!(check(&run), []);
}

#[test]
fn a_series_that_began_anew_between_two_readings_counts_in_full() {
    let mut run = good();
    run.wire.extend([mesh(2, 40_000), mesh(3, 100_000), mesh(4, 101_000)]);
    for pod in [A, B] {
        reread(&mut run, pod, |reading| set(reading, "tcp_open_total", "true", 2));
    }
    let later: Vec<_> =
        run.readings.iter().map(|reading| Reading { at: ms(119_000), ..reading.clone() }).collect();
    run.readings.extend(later);
    assert_says(&check(&run), "4 connections of mutual TLS");
    run.wire.pop();
    for reading in &mut run.readings[2..] {
        set(reading, "tcp_open_total", "true", 1);
    }
    assert_eq!(check(&run), []);
}

#[test]
fn a_process_answers_for_its_own_time_only() {
    let mut run = good();
    for pod in [A, B] {
        reread(&mut run, pod, |reading| {
            reading.since = ms(70_000);
            reading.counters.clear();
        });
    }
    assert_eq!(check(&run), []);
    run.wire.push(mesh(2, 75_000));
    assert_says(&check(&run), "1 connections of mutual TLS on the wire, 0 in");
}

#[test]
fn requests_at_the_start_of_a_process_may_or_may_not_be_counted() {
    for (count, right) in [(18, false), (19, true), (20, true), (21, false)] {
        let mut run = good();
        for pod in [A, B] {
            reread(&mut run, pod, |reading| {
                reading.since = ms(40_100);
                reading.counters.retain(|counter| counter.name == "request_total");
                set(reading, "request_total", "true", count);
            });
        }
        assert_eq!(check(&run).is_empty(), right, "{count}");
    }
}

#[test]
fn handshakes_that_nobody_counted_are_found() {
    let mut run = good();
    let failed = WireConnection { kind: WireKind::Handshake, closed: Some(ms(40_100)), ..mesh(2, 40_000) };
    run.wire.push(WireConnection { first_application_byte: None, ..failed.clone() });
    assert_eq!(check(&run), [], "the one that succeeded is counted, and still open");
    run.wire.push(WireConnection { id: 3, ..failed });
    assert_says(&check(&run), "api-1 inbound: 2 handshakes were over on the wire, 1 are in its metrics");
    reread(&mut run, B, |reading| {
        reading.counters.extend(self::reading(B, 0, "tls_refused_total{reason=\"expired\"} 1").counters)
    });
    assert_eq!(check(&run), []);
}

#[test]
fn requests_counted_over_what_did_not_carry_them_are_found() {
    for (pod, expected) in [(A, "web-1 outbound"), (B, "api-1 inbound")] {
        let mut run = good();
        reread(&mut run, pod, |reading| relabel(reading, "request_total", "no_identity"));
        let violations = check(&run);
        assert_eq!(violations.len(), 2, "{violations:#?}");
        assert!(
            violations[0].what.contains(&format!("{expected}: 30 requests over mutual TLS on the wire, 0"))
        );
        assert!(
            violations[1].what.contains(&format!("{expected}: 0 requests over plaintext on the wire, 30"))
        );
    }
    for (count, pod) in [(29, A), (31, A), (29, B), (31, B)] {
        let mut run = good();
        reread(&mut run, pod, |reading| set(reading, "request_total", "true", count));
        assert_says(
            &check(&run),
            &format!("30 requests over mutual TLS on the wire, {count} in its metrics"),
        );
    }
}

#[test]
fn a_request_that_did_not_arrive_or_was_asked_twice_may_be_counted_otherwise() {
    let mut run = good();
    run.ops.arrived.remove(3);
    assert_eq!(check(&run), []);
    for pod in [A, B] {
        reread(&mut run, pod, |reading| set(reading, "request_total", "true", 29));
    }
    assert_eq!(check(&run), []);
    for asked in [&mut run.ops.begun, &mut run.ops.handed_back] {
        asked.insert(id(4), 2);
    }
    for (count, right) in [(33, true), (34, false)] {
        reread(&mut run, A, |reading| set(reading, "request_total", "true", count));
        assert_eq!(check(&run).is_empty(), right, "{count}");
    }
}

#[test]
fn a_share_that_is_not_what_crossed_is_found() {
    let spoil = |spoil: fn(&mut Run)| {
        let mut run = good();
        spoil(&mut run);
        run.readings.clear();
        run.taps.clear();
        check(&run)
    };
    assert_says(
        &spoil(|run| run.stat[0].tls = Some(0.9)),
        "TLS 0.900 of deployment shop/api, and 1.000 to 1.000 crossed",
    );
    assert_says(&spoil(in_the_clear), "TLS 1.000 of deployment shop/api, and 0.000 to 0.000 crossed");
    assert_says(&spoil(|run| run.stat[0].tls = None), "no traffic of deployment shop/api, which has some");
    assert_says(
        &spoil(|run| run.stat[0].name = "shop/web".into()),
        "of deployment shop/web, which has no traffic",
    );
    assert_says(&spoil(|run| run.stat[0].success = Some(1.5)), "SUCCESS 1.5");
    assert_says(&spoil(|run| run.stat[0].tls = Some(f64::NAN)), "TLS NaN");
    // Absent proxies count nothing.
    assert_says(&spoil(|run| run.pods[1].sidecar = Sidecar::Absent), "which has no traffic");
}

#[test]
fn what_a_pod_did_before_its_scraper_heard_of_it_may_be_missing() {
    let share_is_wrong = |from: u64| {
        let mut run = good();
        run.readings.clear();
        run.taps.clear();
        run.wire.push(plain(2, 30_000));
        run.wire[1].markers = (0..OPS).filter(|n| n % 2 == 0).map(|n| (id(n), ms(0))).collect();
        run.stat[0].tls = Some(0.8);
        run.pods[1].from = ms(from);
        check(&run).iter().any(|violation| violation.what.contains("TLS 0.800"))
    };
    // Operations end before second 61; those from second 45 to 60 are certain otherwise.
    assert!(share_is_wrong(0));
    assert!(!share_is_wrong(44_000), "nothing is certain before second 59");
}

#[test]
fn a_mixed_share_lies_between_what_is_certain() {
    let mut run = good();
    run.readings.clear();
    run.taps.clear();
    run.wire.push(plain(2, 30_000));
    // Half of the operations; those from second 45 to 60 are certain to be in the window of 30 s at 75 s.
    run.wire[1].markers = (0..OPS).filter(|n| n % 2 == 0).map(|n| (id(n), ms(0))).collect();
    for (share, right) in [(0.5, true), (0.4, true), (0.2, false), (0.8, false), (0.0, false), (1.0, false)] {
        run.stat[0].tls = Some(share);
        assert_eq!(check(&run).is_empty(), right, "{share}: {:#?}", check(&run));
    }
}

#[test]
fn streams_count_where_there_are_no_requests() {
    let mut run = good();
    run.readings.clear();
    run.taps.clear();
    for number in 0..OPS {
        op(&mut run, number).protocol = Protocol::Opaque;
    }
    assert_eq!(check(&run), []);
    run.stat[0].tls = None;
    assert_eq!(check(&run), [], "a stream may have been opened before the window");
    run.stat[0].tls = Some(0.5);
    assert_says(&check(&run), "1.000 to 1.000 crossed");
    for number in 0..OPS {
        op(&mut run, number).protocol = Protocol::AppTls;
    }
    assert_eq!(check(&run), [], "the application's own TLS may be within the mesh's, or not");
}

#[test]
fn a_stray_connection_may_count_where_there_are_no_requests() {
    let mut run = good();
    run.readings.clear();
    run.taps.clear();
    for number in 0..OPS {
        op(&mut run, number).protocol = Protocol::Opaque;
    }
    run.stat[0].tls = Some(0.5);
    assert_says(&check(&run), "1.000 to 1.000 crossed");
    run.wire.push(WireConnection { sni: Some(name("another")), kind: WireKind::AppTls, ..plain(2, 50_000) });
    assert_eq!(check(&run), []);
}

#[test]
fn a_websocket_is_a_request_that_may_be_older_than_the_window() {
    let mut run = good();
    run.readings.clear();
    run.taps.clear();
    run.wire.push(plain(2, 30_000));
    run.wire[1].markers = (0..OPS).filter(|n| n % 2 == 0).map(|n| (id(n), ms(0))).collect();
    for number in (0..OPS).filter(|number| number % 2 == 0) {
        op(&mut run, number).protocol = Protocol::WebSocket;
    }
    for (share, right) in [(1.0, true), (0.6, true), (0.1, false)] {
        run.stat[0].tls = Some(share);
        assert_eq!(check(&run).is_empty(), right, "{share}: {:#?}", check(&run));
    }
}

#[test]
fn a_tap_that_calls_a_request_what_it_was_not_is_found() {
    let mut run = good();
    run.taps[0].tls = "no_identity".into();
    assert_says(&check(&run), "tap says tls=\"no_identity\" of op-1-0-10., which crossed encrypted");

    let mut run = good();
    in_the_clear(&mut run);
    run.readings.clear();
    run.stat.clear();
    assert_says(&check(&run), "tap says tls=\"true\" of op-1-0-10., which crossed in the clear");

    let mut run = good();
    run.readings.clear();
    run.taps[0].op = id(99);
    assert_says(&check(&run), "tap shows op-1-0-99., which nobody asked");

    ask(&mut run, id(99), 50_000);
    run.ops.arrived.last_mut().unwrap().server = A;
    run.stat.clear();
    assert_says(&check(&run), "which never left its pod");
    run.taps[0].tls = "loopback".into();
    assert_eq!(check(&run), []);
}
