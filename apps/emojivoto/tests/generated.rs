//! Keeps the committed code in step with the contract. After a change of the `.proto`, run
//! `UPDATE_GENERATED=1 cargo test -p conduit-emojivoto`.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path};

const CONTRACT: &str = "emojivoto/v1.proto";
const CODE: &str = "emojivoto.v1.rs";

#[test]
fn committed_code_is_what_the_contract_generates() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    generate(&root.join("proto"), out.path());
    let generated = fs::read_to_string(out.path().join(CODE)).unwrap();
    let committed = root.join("src/gen").join(CODE);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&committed, &generated).unwrap();
    }
    let found = fs::read_to_string(&committed).unwrap_or_default();
    assert!(
        found == generated,
        "{CODE} differs from {CONTRACT}: run UPDATE_GENERATED=1 cargo test -p conduit-emojivoto"
    );
}

fn generate(contracts: &Path, out: &Path) {
    let descriptors = protox::compile([contracts.join(CONTRACT)], [contracts]).unwrap();
    tonic_prost_build::configure()
        .btree_map(".")
        .build_transport(false)
        .out_dir(out)
        .compile_fds(descriptors)
        .unwrap();
}
