//! Keeps the committed code in step with the contracts. After a change of a `.proto`, run
//! `UPDATE_GENERATED=1 cargo test -p conduit-proto`.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path};

const CONTRACTS: [&str; 3] = ["conduit/destination.proto", "conduit/lifecycle.proto", "conduit/tap.proto"];

#[test]
fn committed_code_is_what_the_contracts_generate() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    generate(&root.join("proto"), out.path());
    for contract in CONTRACTS {
        let name = format!("{}.rs", contract.trim_end_matches(".proto").replace('/', "."));
        let generated = fs::read_to_string(out.path().join(&name)).unwrap();
        let committed = root.join("src/gen").join(&name);
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            fs::write(&committed, &generated).unwrap();
        }
        let found = fs::read_to_string(&committed).unwrap_or_default();
        assert!(
            found == generated,
            "{name} differs from its contract: run UPDATE_GENERATED=1 cargo test -p conduit-proto"
        );
    }
}

fn generate(contracts: &Path, out: &Path) {
    let descriptors =
        protox::compile(CONTRACTS.map(|contract| contracts.join(contract)), [contracts]).unwrap();
    tonic_prost_build::configure()
        .btree_map(".")
        .build_transport(false)
        .out_dir(out)
        .compile_fds(descriptors)
        .unwrap();
}
