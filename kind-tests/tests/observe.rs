//! What people are told of a mesh on a real cluster: who talks to whom, why something is not encrypted, what is broken.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Stdio},
    time::Duration,
};

use kind_tests::{
    Cluster,
    asked::{answer, until_edge, until_why},
    cluster::PATIENCE,
    mesh,
    process::until,
};

const PATIENCE_S: &str = "120s";

#[test]
fn every_edge_of_the_sample_application_is_encrypted_and_why_says_the_same() {
    let cluster = Cluster::get();
    mesh::with_emojivoto(&cluster);
    for (client, server) in [("vote-bot", "web"), ("web", "emoji"), ("web", "voting")] {
        until_edge(&cluster, mesh::EMOJIVOTO, (client, server), 1.0, &[]);
        let ends = [format!("deploy/{client}"), format!("deploy/{server}")];
        let why = until_why(&cluster, &[&ends[0], &ends[1]], mesh::EMOJIVOTO, 0);
        let links = why["links"].as_array().unwrap();
        let is_whole = links.len() > 5 && links.iter().all(|link| link["state"] == "ok");
        assert!(is_whole, "{links:#?}");
    }
    println!("{}", cluster.conduit(&["edges", "-n", mesh::EMOJIVOTO, "-o", "wide"]));
    println!("{}", cluster.conduit(&["why", "deploy/web", "svc/emoji-svc", "-n", mesh::EMOJIVOTO]));
}

#[test]
fn a_proxy_serves_the_certificate_that_its_secret_holds() {
    let cluster = Cluster::get();
    mesh::with_emojivoto(&cluster);
    let (code, identities) = answer(&cluster, &["identity", "deploy/web", "-n", mesh::EMOJIVOTO]);
    assert_eq!(code, Some(0), "{identities:#}");
    let pod = &identities["pods"][0];
    let name = "web.deployment.emojivoto.conduit-managed.conduit.svc.cluster.local";
    assert_eq!(
        (&pod["expected"], &pod["trusted"], &pod["name_matches"]),
        (&name.into(), &true.into(), &true.into())
    );
    let text = cluster.conduit(&["identity", "deploy/web", "-n", mesh::EMOJIVOTO]);
    println!("{text}");
    assert!(text.contains(name), "{text}");
    // Whom proxies are told to expect is who answers.
    let (code, endpoints) = answer(&cluster, &["diagnostics", "endpoints", "web-svc.emojivoto:80"]);
    let endpoint = &endpoints["endpoints"][0];
    let address = format!(
        "{}:8080",
        cluster.pods(mesh::EMOJIVOTO, "app=web-svc")[0]["status"]["podIP"].as_str().unwrap()
    );
    assert_eq!((code, &endpoint["address"], &endpoint["identity"]), (Some(0), &address.into(), &name.into()));
}

#[test]
fn a_check_finds_what_is_broken_and_nothing_else() {
    let cluster = Cluster::get();
    mesh::with_emojivoto(&cluster);
    let all_is_well = ["check", "--proxy", "--wait", PATIENCE_S];
    println!("{}", cluster.conduit(&all_is_well));
    cluster.kubectl(&["scale", "-n", mesh::CONTROL_PLANE, "deployment/destination", "--replicas=0"]);
    let found = until("a check that fails", PATIENCE, || {
        let output = cluster.conduit_fed(&["check", "-o", "short"], "");
        let is_found = output.code == Some(2) && output.stdout.contains("destination");
        if is_found {
            Ok(output.stdout)
        } else {
            Err(format!("{:?}: {}{}", output.code, output.stdout, output.stderr))
        }
    });
    println!("{found}");
    // What is cached is in use: requests go on, encrypted, and why tells what is missing all the same.
    let why = until_why(&cluster, &["deploy/vote-bot", "deploy/web"], mesh::EMOJIVOTO, 0);
    assert!(why["links"].as_array().unwrap().iter().any(|link| link["state"] != "ok"), "{why:#}");
    cluster.kubectl(&["scale", "-n", mesh::CONTROL_PLANE, "deployment/destination", "--replicas=1"]);
    cluster.conduit(&all_is_well);
}

#[test]
fn a_bundle_for_support_holds_states_and_no_key() {
    let cluster = Cluster::get();
    mesh::with_emojivoto(&cluster);
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("bundle.tar.gz");
    cluster.conduit(&["diagnostics", "bundle", "--output", archive.to_str().unwrap()]);
    let mut list = std::process::Command::new("tar");
    let text =
        kind_tests::process::run(list.arg("-xzOf").arg(&archive), "", Duration::from_secs(60)).unwrap();
    assert_eq!(text.code, Some(0), "{}", text.stderr);
    assert!(text.stdout.contains("response_total") && text.stdout.contains("emojivoto"));
    assert!(!text.stdout.contains("PRIVATE KEY") && !text.stdout.contains("tls.key:"));
}

/// A command that goes on until it is ended.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_dashboard_is_where_it_says() {
    let cluster = Cluster::get();
    mesh::with_emojivoto(&cluster);
    let mut command = cluster.conduit_command(&["dashboard", "--show", "url", "--port", "0"]);
    let mut dashboard = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(dashboard.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap().trim();
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(connection, "GET /?namespace=emojivoto HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut page = String::new();
    connection.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("emojivoto"), "{page}");
}
