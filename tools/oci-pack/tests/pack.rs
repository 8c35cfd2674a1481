//! The program as it is used, and its archive as others read it.

#![allow(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Output},
    time::SystemTime,
};

use flate2::read::GzDecoder;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A directory with what an image is made of.
fn sources() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("program"), "#!program").expect("written");
    fs::write(directory.path().join("library"), vec![7; 100_000]).expect("written");
    directory
}

fn pack(directory: &Path, more: &[&str]) -> Output {
    let arguments = "--image conduit/test:1.2.3 --output image.tar --file program:/usr/bin/program \
                     --file library:/usr/lib/library.so:0644 --symlink /lib=usr/lib --entrypoint /usr/bin/program \
                     --user 2102 --label org.opencontainers.image.version=1.2.3 --label a=b";
    oci_pack()
        .current_dir(directory)
        .args(arguments.split_whitespace())
        .args(more)
        .output()
        .expect("it starts")
}

/// By its absolute path, since Bazel says where it is from the directory that this test starts in.
fn oci_pack() -> Command {
    Command::new(std::path::absolute(env!("CARGO_BIN_EXE_oci-pack")).expect("a path"))
}

fn packed(directory: &Path, more: &[&str]) -> (String, Vec<u8>) {
    let output = pack(directory, more);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let archive = fs::read(directory.join("image.tar")).expect("it is written");
    (String::from_utf8(output.stdout).expect("text"), archive)
}

fn entry(archive: &[u8], name: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().expect("an archive").map(|entry| entry.expect("an entry"));
    let mut found =
        entries.into_iter().find(|entry| entry.path().is_ok_and(|path| path == Path::new(name))).expect(name);
    let mut content = Vec::new();
    found.read_to_end(&mut content).expect("it is whole");
    content
}

fn document(archive: &[u8], name: &str) -> Value {
    serde_json::from_slice(&entry(archive, name)).expect("JSON")
}

fn digest(content: &[u8]) -> String {
    let hex = Sha256::digest(content).iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    format!("sha256:{hex}")
}

/// The blob that a descriptor names, whose size and digest are what it says.
fn blob(archive: &[u8], descriptor: &Value) -> Vec<u8> {
    let named = descriptor["digest"].as_str().expect("a digest");
    let content = entry(archive, &format!("blobs/{}", named.replace(':', "/")));
    assert_eq!(digest(&content), named);
    assert_eq!(descriptor["size"], content.len());
    content
}

#[test]
fn the_same_files_are_the_same_bytes_whatever_the_machine_says_of_them() {
    let (first, second) = (sources(), sources());
    let program = second.path().join("program");
    let file = fs::OpenOptions::new().write(true).open(&program).expect("it is there");
    file.set_modified(SystemTime::UNIX_EPOCH).expect("its time is set");
    let mut mode = file.metadata().expect("it is there").permissions();
    mode.set_readonly(true);
    fs::set_permissions(&program, mode).expect("its mode is set");

    let (line, bytes) = packed(first.path(), &[]);
    assert!(packed(second.path(), &[]) == (line.clone(), bytes), "the archives differ");
    assert!(line.starts_with("conduit/test:1.2.3 sha256:") && line.ends_with(" image.tar\n"), "{line}");
}

#[test]
fn other_files_are_another_digest() {
    let (first, second) = (sources(), sources());
    fs::write(second.path().join("program"), "#!another").expect("written");
    assert_ne!(packed(first.path(), &[]).0, packed(second.path(), &[]).0);
}

#[test]
fn an_oci_loader_finds_name_user_entrypoint_labels_and_files() {
    let sources = sources();
    let (line, archive) = packed(sources.path(), &[]);
    assert_eq!(document(&archive, "oci-layout")["imageLayoutVersion"], "1.0.0");
    let index = document(&archive, "index.json");
    let named = &index["manifests"][0];
    assert_eq!(named["annotations"]["io.containerd.image.name"], "docker.io/conduit/test:1.2.3");
    assert_eq!(named["annotations"]["org.opencontainers.image.ref.name"], "1.2.3");
    assert!(line.contains(named["digest"].as_str().expect("a digest")), "{line}");

    let manifest: Value = serde_json::from_slice(&blob(&archive, named)).expect("JSON");
    let config: Value = serde_json::from_slice(&blob(&archive, &manifest["config"])).expect("JSON");
    insta::assert_json_snapshot!(config, {".rootfs.diff_ids[0]" => "digest"});

    let mut layer = Vec::new();
    let compressed = blob(&archive, &manifest["layers"][0]);
    GzDecoder::new(compressed.as_slice()).read_to_end(&mut layer).expect("gzip");
    assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
    assert_eq!(entry(&layer, "usr/bin/program"), b"#!program");
}

#[test]
fn docker_finds_the_same_blobs() {
    let sources = sources();
    let (_, archive) = packed(sources.path(), &[]);
    let index = document(&archive, "index.json");
    let manifest: Value = serde_json::from_slice(&blob(&archive, &index["manifests"][0])).expect("JSON");
    let for_docker = document(&archive, "manifest.json");
    let path = |descriptor: &Value| {
        format!("blobs/{}", descriptor["digest"].as_str().expect("a digest").replace(':', "/"))
    };
    assert_eq!(for_docker[0]["RepoTags"][0], "conduit/test:1.2.3");
    assert_eq!(for_docker[0]["Config"], path(&manifest["config"]));
    assert_eq!(for_docker[0]["Layers"][0], path(&manifest["layers"][0]));
}

#[test]
fn other_programs_read_the_archive() {
    let sources = sources();
    packed(sources.path(), &[]);
    let tar = Command::new("tar")
        .args(["-tf", "image.tar"])
        .current_dir(sources.path())
        .output()
        .expect("tar runs");
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    let names = String::from_utf8(tar.stdout).expect("text");
    assert_eq!(names.lines().take(3).collect::<Vec<_>>(), ["oci-layout", "index.json", "manifest.json"]);

    let script = "
import io, json, tarfile
image = tarfile.open('image.tar')
[manifest] = json.load(image.extractfile('manifest.json'))
layer = tarfile.open(fileobj=image.extractfile(manifest['Layers'][0]))
print(*(f'{entry.mode:o} {entry.name}' for entry in layer), sep='\\n')";
    let python = Command::new("python3")
        .args(["-c", script])
        .current_dir(sources.path())
        .output()
        .expect("python3 runs");
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let listed = String::from_utf8(python.stdout).expect("text");
    assert_eq!(
        listed,
        "777 lib\n755 usr\n755 usr/bin\n755 usr/bin/program\n755 usr/lib\n644 usr/lib/library.so\n"
    );
}

#[test]
fn a_bill_of_materials_is_written_beside() {
    let sources = sources();
    let metadata = r#"{"packages": [{"id": "1", "name": "program", "version": "1.2.3", "license": "MIT",
        "source": null, "targets": []}],
        "resolve": {"nodes": [{"id": "1", "deps": []}]}}"#;
    fs::write(sources.path().join("metadata.json"), metadata).expect("written");
    let more = "--sbom image.cdx.json --cargo-metadata metadata.json --cargo-package program \
                --component pkg:deb/debian/iptables@1.8.9-2";
    let (line, _) = packed(sources.path(), &more.split_whitespace().collect::<Vec<_>>());
    let sbom: Value =
        serde_json::from_slice(&fs::read(sources.path().join("image.cdx.json")).expect("written"))
            .expect("JSON");
    let digest = line.split(' ').nth(1).expect("the digest");
    assert_eq!(sbom["metadata"]["component"]["bom-ref"], format!("pkg:oci/conduit/test:1.2.3@{digest}"));
    assert_eq!(sbom["components"].as_array().map(Vec::len), Some(2));
}

#[test]
fn what_cannot_be_packed_is_named_and_leaves_no_archive() {
    let refused = |more: &[&str]| {
        let sources = sources();
        let output = pack(sources.path(), more);
        assert!(!output.status.success(), "{more:?}");
        assert!(!sources.path().join("image.tar").exists(), "{more:?}");
        String::from_utf8(output.stderr).expect("text").lines().next().expect("a message").to_owned()
    };
    let errors = [
        refused(&["--file", "nothing:/bin/x"]),
        refused(&["--file", "program:/usr/bin/program"]),
        refused(&["--file", "program:/usr/bin/program/x"]),
        refused(&["--sbom", "x.json", "--cargo-metadata", "program", "--cargo-package", "program"]),
        refused(&["--sbom", "x.json", "--cargo-metadata", "none", "--cargo-package", "program"]),
    ];
    insta::assert_snapshot!(errors.join("\n"));
}

#[test]
fn an_entrypoint_must_be_a_program_in_the_image() {
    let sources = sources();
    for path in ["/usr/bin/none", "/usr/lib/library.so", "/lib"] {
        let output = oci_pack()
            .current_dir(sources.path())
            .args(["--image", "x:1", "--output", "x.tar", "--user", "1", "--entrypoint", path])
            .args(["--file", "program:/usr/bin/program", "--file", "library:/usr/lib/library.so:644"])
            .args(["--symlink", "/lib=usr/lib"])
            .output()
            .expect("it starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            error.starts_with(&format!("error: --entrypoint {path} is not a program in the image")),
            "{error}"
        );
    }
}
