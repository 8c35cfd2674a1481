//! Whatever breaks in the mesh, no request is harmed, and TLS comes back by itself.

use kind_tests::{Cluster, faults::World};

const NAMESPACE: &str = "conduit-tests-failopen";

#[test]
fn no_fault_of_the_mesh_harms_a_request() {
    let cluster = Cluster::get();
    let mut world = World::new(&cluster, NAMESPACE);
    world.fault("nothing", |_| (), |_| ());
    faults_of_certificates(&mut world);
    faults_of_discovery(&mut world);
    if cluster.on_node("true").is_some() {
        faults_of_the_network(&mut world);
    } else {
        eprintln!(
            "!!! SKIPPED: faults of the network: there is no way to the node's; give kind-tests/run --node"
        );
    }
    println!("{}", world.table());
    cluster.leave_namespace(NAMESPACE);
}

fn faults_of_certificates(world: &mut World<'_>) {
    world.fault("the CA is killed", |world| world.kill("ca"), |world| world.revive("ca"));
    world.fault("the server's Secret is deleted", World::delete_secret, |_| ());
    world.fault(
        "no CA, and the server's Secret is garbage",
        |world| {
            world.kill("ca");
            world.spoil_secret();
        },
        |world| world.revive("ca"),
    );
    world.fault(
        "no CA, and the server has the caller's Secret",
        |world| {
            world.kill("ca");
            world.swap_secret();
        },
        |world| world.revive("ca"),
    );
    world.fault(
        "no CA, and the server's certificate has expired",
        World::expire_secret,
        World::stop_expiring,
    );
    world.fault(
        "no CA, and a server that never had a Secret",
        |world| {
            world.kill("ca");
            world.delete_secret();
            world.restart("server");
        },
        |world| world.revive("ca"),
    );
}

fn faults_of_discovery(world: &mut World<'_>) {
    world.fault(
        "the destination service is killed",
        |world| world.kill("destination"),
        |world| world.revive("destination"),
    );
    world.fault(
        "no destination service, and a new server",
        |world| {
            world.kill("destination");
            world.restart("server");
        },
        |world| world.revive("destination"),
    );
    world.fault(
        "the server leaves the mesh",
        |world| world.mesh_server(false),
        |world| world.mesh_server(true),
    );
}

fn faults_of_the_network(world: &mut World<'_>) {
    world.fault(
        "the control plane is cut off from the API server",
        |world| world.cut_api_server(true),
        |world| world.cut_api_server(false),
    );
    world.fault(
        "the control plane is cut off from the API server, and a new server",
        |world| {
            world.cut_api_server(true);
            world.restart("server");
        },
        |world| world.cut_api_server(false),
    );
    world.fault(
        "somebody without a proxy has the server's address, and a new caller",
        |world| {
            world.take_server_address_over();
            world.restart("caller");
        },
        |world| world.restart("server"),
    );
}
