//! A pod's network with a relay in the sidecar's place.

use std::net::SocketAddr;

use conduit_net::{Accepted, Io, Listener};
use conduit_runtime::{drain, serve};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use super::*;
use crate::address::Addresses;

/// What a relay has seen of a connection.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    through: u16,
    peer: IpAddr,
    original: Option<SocketAddr>,
}

/// Runs something like a proxy: whatever arrives goes to its original destination.
async fn relay(pod: &PodNet, drain: &drain::Watch) -> mpsc::UnboundedReceiver<Seen> {
    let (seen, sightings) = mpsc::unbounded_channel();
    for port in [4143, 4140] {
        let net = pod.proxy();
        let listener = net.bind(([0, 0, 0, 0], port).into()).await.unwrap();
        let (seen, net) = (seen.clone(), net.clone());
        tokio::spawn(serve::accept_loop(listener, 64, drain.clone(), move |accepted| {
            let sighting = Seen {
                through: port,
                peer: accepted.peer.ip(),
                original: accepted.original_dst.map(SocketAddr::from),
            };
            drop(seen.send(sighting));
            forward(net.clone(), accepted)
        }));
    }
    sightings
}

async fn forward(net: Net, mut accepted: Accepted) {
    let Some(to) = accepted.original_dst else { return };
    match net.connect(to.into()).await {
        Ok(mut upstream) => drop(tokio::io::copy_bidirectional(&mut accepted.io, &mut upstream).await),
        Err(_) => accepted.io.reset(),
    }
}

/// An application that says who is there, then repeats what it is told.
async fn echo(net: Net, listener: Box<dyn Listener>, drain: drain::Watch) {
    drop(net);
    serve::accept_loop(listener, 64, drain, |mut accepted| async move {
        let greeting = format!("{} ", accepted.peer.ip());
        accepted.io.write_all(greeting.as_bytes()).await.unwrap();
        let (mut read, mut write) = tokio::io::split(accepted.io);
        drop(tokio::io::copy(&mut read, &mut write).await);
        drop(write.shutdown().await);
    })
    .await;
}

async fn start_echo(pod: &PodNet, address: &str, drain: &drain::Watch) {
    let net = pod.app();
    let listener = net.bind(address.parse().unwrap()).await.unwrap();
    tokio::spawn(echo(net, listener, drain.clone()));
}

async fn say(io: &mut Io, words: &str) -> String {
    io.write_all(words.as_bytes()).await.unwrap();
    io.shutdown().await.unwrap();
    let mut heard = String::new();
    io.read_to_string(&mut heard).await.unwrap();
    heard
}

fn nowhere() -> Services {
    Services::fixed([], [])
}

fn web_service(pod: IpAddr) -> Services {
    let meta = json!({"name": "web", "namespace": "shop"});
    let service = json!({"metadata": meta, "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}});
    let subset = json!({"addresses": [{"ip": pod.to_string()}], "ports": [{"port": 8080}]});
    let endpoints = json!({"metadata": meta, "subsets": [subset]});
    Services::fixed([serde_json::from_value(service).unwrap()], [serde_json::from_value(endpoints).unwrap()])
}

/// Addresses that no other test uses at the same time.
fn addresses(offset: u32) -> Addresses {
    Addresses::loopback().starting_at(4096 + offset)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_call_passes_both_sidecars_and_each_knows_where_it_was_going() {
    let (_trigger, drain) = drain::channel();
    let addresses = addresses(0);
    let (client, server) = (addresses.host().unwrap(), addresses.host().unwrap());
    let (client_ip, server_ip) = (client.ip(), server.ip());
    let services = web_service(server_ip);
    let client = PodNet::meshed(client, "shop", services.clone(), Redirect::default());
    let server = PodNet::meshed(server, "shop", services, Redirect::default());
    let mut client_relay = relay(&client, &drain).await;
    let mut server_relay = relay(&server, &drain).await;
    start_echo(&server, "0.0.0.0:8080", &drain).await;

    let app = client.app();
    let found = app.resolve("web.shop").await.unwrap().addrs[0];
    // The server's public port opens when its sidecar has learned of the application's.
    let mut io = connect_when_open(&app, (found, 80).into()).await;
    assert_eq!(say(&mut io, "hello").await, format!("{server_ip} hello"), "the application sees its own pod");

    let sent = last(&mut client_relay);
    assert_eq!(
        sent,
        Seen { through: 4140, peer: client_ip, original: Some("10.96.0.1:80".parse().unwrap()) }
    );
    let received = last(&mut server_relay);
    assert_eq!(received, Seen { through: 4143, peer: client_ip, original: Some((server_ip, 8080).into()) });
}

fn last(sightings: &mut mpsc::UnboundedReceiver<Seen>) -> Seen {
    let mut last = sightings.try_recv().unwrap();
    while let Ok(next) = sightings.try_recv() {
        last = next;
    }
    last
}

/// Connects to a server that greets, again until it is there.
async fn connect_when_open(net: &Net, to: SocketAddr) -> Io {
    let opened = async {
        loop {
            if let Ok(mut probe) = net.connect(to).await
                && probe.read_exact(&mut [0; 1]).await.is_ok()
            {
                return net.connect(to).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), opened).await.unwrap()
}

#[tokio::test]
async fn the_same_on_ports_of_one_address() {
    let (_trigger, drain) = drain::channel();
    let addresses = Addresses::ports();
    let (client, server) = (addresses.host().unwrap(), addresses.host().unwrap());
    let server_ip = server.ip();
    let client = PodNet::meshed(client, "shop", nowhere(), Redirect::default());
    let server = PodNet::meshed(server, "shop", nowhere(), Redirect::default());
    let _client_relay = relay(&client, &drain).await;
    let mut server_relay = relay(&server, &drain).await;
    start_echo(&server, "0.0.0.0:8080", &drain).await;
    let mut io = connect_when_open(&client.app(), (server_ip, 8080).into()).await;
    assert!(say(&mut io, "hello").await.ends_with(" hello"));
    assert_eq!(last(&mut server_relay).original, Some((server_ip, 8080).into()));
    let refused = client.proxy().connect((server_ip, 9).into()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn without_a_sidecar_the_pod_talks_and_listens_itself() {
    let (_trigger, drain) = drain::channel();
    let addresses = addresses(64);
    let (client, server) = (addresses.host().unwrap(), addresses.host().unwrap());
    let client_ip = client.ip();
    let services = web_service(server.ip());
    let client = PodNet::unmeshed(client, "shop", services.clone());
    let server = PodNet::unmeshed(server, "shop", services);
    start_echo(&server, "0.0.0.0:8080", &drain).await;
    let mut io = client.app().connect("10.96.0.1:80".parse().unwrap()).await.unwrap();
    assert_eq!(say(&mut io, "hello").await, format!("{client_ip} hello"));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_application_reaches_itself_without_its_sidecar_and_loopback_stays_private() {
    let (_trigger, drain) = drain::channel();
    let addresses = addresses(128);
    let host = addresses.host().unwrap();
    let ip = host.ip();
    let pod = PodNet::meshed(host, "shop", nowhere(), Redirect::default());
    let mut seen = relay(&pod, &drain).await;
    start_echo(&pod, "0.0.0.0:8080", &drain).await;
    start_echo(&pod, "127.0.0.1:9000", &drain).await;
    for address in ["127.0.0.1:8080".to_owned(), format!("{ip}:8080"), "127.0.0.1:9000".to_owned()] {
        let mut io = pod.app().connect(address.parse().unwrap()).await.unwrap();
        assert_eq!(say(&mut io, "me").await, format!("{ip} me"), "{address}");
    }
    assert!(seen.try_recv().is_err(), "the sidecar saw a call of the pod to itself");
    assert_eq!(*pod.listening().borrow(), BTreeSet::from([8080]));
    assert!(pod.proxy().connect((ip, 9000).into()).await.is_err(), "a private port is open to others");
    let taken = pod.app().bind("0.0.0.0:8080".parse().unwrap()).await.err().unwrap();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_connection_without_a_preamble_delays_no_other() {
    let (_trigger, drain) = drain::channel();
    let addresses = addresses(192);
    let (client, server) = (addresses.host().unwrap(), addresses.host().unwrap());
    let (client_ip, server_ip) = (client.ip(), server.ip());
    let client = PodNet::meshed(client, "shop", nowhere(), Redirect::default());
    let server = PodNet::unmeshed(server, "shop", nowhere());
    let _relay = relay(&client, &drain).await;
    start_echo(&server, "0.0.0.0:8080", &drain).await;
    let _silent = server.app().connect((client_ip, 4140).into()).await.unwrap();
    let mut io = client.app().connect((server_ip, 8080).into()).await.unwrap();
    assert_eq!(say(&mut io, "hello").await, format!("{client_ip} hello"));
}
