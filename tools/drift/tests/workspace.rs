//! This workspace has not drifted, and one that has is told what to change.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::{fs, path::Path};

use tempfile::TempDir;

#[test]
fn bazels_files_say_what_cargos_do() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let findings = drift::findings(&root).unwrap();
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "Bazel's files have drifted from Cargo's:\n{}", lines.join("\n"));
}

/// A workspace of two crates, `a` and `b`, of which `b` uses `a`.
const SOUND: [(&str, &str); 14] = [
    ("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"a\", \"b\"]\n"),
    ("rust-toolchain.toml", "[toolchain]\nchannel = \"1.95.0\"\n"),
    (".cargo/config.toml", "[build]\nrustflags = [\"--cfg\", \"x=\\\"y\\\"\"]\n"),
    (
        ".bazelrc",
        "build '--@rules_rust//rust/settings:extra_rustc_flag=--cfg=x=\"y\"'\n\
         build '--@rules_rust//rust/settings:extra_exec_rustc_flag=--cfg=x=\"y\"'\n",
    ),
    (
        "MODULE.bazel",
        "rust.toolchain(versions = [\"1.95.0\"])\n\
         crate.from_cargo(manifests = [\"//:Cargo.toml\", \"//a:Cargo.toml\", \"//b:Cargo.toml\"])\n",
    ),
    ("a/Cargo.toml", "[package]\nname = \"a\"\nedition = \"2024\"\n"),
    ("a/src/lib.rs", "const TEXT: &str = include_str!(\"text.json\");\n"),
    ("a/src/text.json", "{}\n"),
    (
        "a/BUILD.bazel",
        "crate_library(name = \"a\", compile_data = [\"src/text.json\"], crate_name = \"a\", \
         visibility = [\"//b:__pkg__\"])\n",
    ),
    (
        "b/Cargo.toml",
        "[package]\nname = \"b\"\nedition = \"2024\"\n[dependencies]\na = { path = \"../a\" }\n\
         [[test]]\nname = \"t\"\ntest = false\n",
    ),
    ("b/src/main.rs", "fn main() {}\n"),
    ("b/tests/t.rs", ""),
    ("b/tests/snapshots/t.snap", ""),
    (
        "b/BUILD.bazel",
        "DEPS = [\"//a\"]\n\
         crate_binary(name = \"b\", deps = DEPS)\n\
         crate_test(name = \"t_test\", crate_root = \"tests/t.rs\", data = glob([\"tests/**/*.snap\"]), \
         tags = [\"manual\"], deps = DEPS)\n",
    ),
];

struct Workspace(TempDir);

impl Workspace {
    fn sound() -> Self {
        let workspace = Self(tempfile::tempdir().unwrap());
        for (file, text) in SOUND {
            workspace.write(file, text);
        }
        workspace
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.0.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn replace(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.0.path().join(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        self.write(file, &text.replace(from, to));
    }

    fn findings(&self) -> Vec<String> {
        drift::findings(self.0.path()).unwrap().iter().map(ToString::to_string).collect()
    }
}

/// What is found once `from` in `file` has become `to`.
#[track_caller]
fn found(file: &str, from: &str, to: &str) -> Vec<String> {
    let workspace = Workspace::sound();
    workspace.replace(file, from, to);
    workspace.findings()
}

#[test]
fn a_sound_workspace_has_no_findings() {
    assert_eq!(Workspace::sound().findings(), [""; 0]);
}

#[test]
fn a_dependency_that_bazel_lacks_is_named_for_each_target() {
    assert_eq!(
        found("b/BUILD.bazel", "[\"//a\"]", "[]"),
        [
            "b/BUILD.bazel: add \"//a\" to deps of \"b\": Cargo.toml has it",
            "b/BUILD.bazel: add \"//a\" to deps of \"t_test\": Cargo.toml has it",
        ]
    );
}

#[test]
fn a_dependency_that_only_bazel_has_is_named() {
    assert_eq!(
        found("a/BUILD.bazel", "crate_name", "deps = [\"//b\"], crate_name"),
        ["a/BUILD.bazel: remove \"//b\" from deps of \"a\": Cargo.toml has it not"]
    );
}

#[test]
fn a_new_arrow_is_to_be_weighed() {
    assert_eq!(
        found("a/BUILD.bazel", "//b:__pkg__", "//c:__pkg__"),
        [
            "a/BUILD.bazel: add \"//b:__pkg__\" to visibility of \"a\" if the arrows of docs/ARCHITECTURE.md \
             allow it; if not, take the dependency out of b/Cargo.toml",
            "a/BUILD.bazel: remove \"//c:__pkg__\" from visibility of \"a\": nothing there depends on it",
        ]
    );
}

#[test]
fn an_included_file_that_is_not_declared_is_named_with_who_includes_it() {
    let expected = "a/BUILD.bazel: add \"src/text.json\" to compile_data of \"a\": src/lib.rs includes it";
    let findings = found("a/BUILD.bazel", "\"src/text.json\"", "");
    assert!(findings.contains(&expected.to_owned()), "{findings:#?}");
}

#[test]
fn a_file_included_from_elsewhere_is_to_be_moved() {
    assert_eq!(
        found("b/src/main.rs", "fn", "const TEXT: &str = include_str!(\"../../a/src/text.json\");\nfn"),
        [
            "b/BUILD.bazel: src/main.rs includes ../a/src/text.json, outside of its package, where neither Bazel \
             nor Nix sees it: move it into the package"
        ]
    );
}

#[test]
fn a_file_that_nothing_declares_is_named() {
    let findings = found("b/BUILD.bazel", "**/*.snap", "*.snap");
    assert_eq!(findings.len(), 1);
    assert!(
        findings[0].starts_with("b/BUILD.bazel: tests/snapshots/t.snap is declared nowhere: add it to data")
    );
}

#[test]
fn a_forgotten_crate_is_added_to_the_module_and_given_targets() {
    let workspace = Workspace::sound();
    workspace.replace("Cargo.toml", "\"b\"", "\"b\", \"c\"");
    workspace.write(
        "c/Cargo.toml",
        "[package]\nname = \"c\"\nedition = \"2024\"\n[dependencies]\na = { path = \"../a\" }\n",
    );
    workspace.write("c/src/lib.rs", "");
    workspace.replace("a/BUILD.bazel", "//b:__pkg__\"", "//b:__pkg__\", \"//c:__pkg__\"");
    assert_eq!(
        workspace.findings(),
        [
            "MODULE.bazel: add \"//c:Cargo.toml\" to the manifests of crate.from_cargo: it is a member of the workspace",
            "c/BUILD.bazel: add crate_library(name = \"c\", crate_name = \"c\", deps = [\"//a\"]): \
             Cargo has a lib at src/lib.rs",
        ]
    );
}

#[test]
fn a_crate_that_is_on_no_list_is_put_on_it_unless_it_is_a_workspace() {
    let workspace = Workspace::sound();
    workspace.write("tools/c/Cargo.toml", "[package]\nname = \"c\"\n");
    workspace.write("a/fuzz/Cargo.toml", "[package]\nname = \"fuzz\"\n[workspace]\n");
    workspace.write("target/package/c/Cargo.toml", "[package]\nname = \"c\"\n");
    assert_eq!(
        workspace.findings(),
        ["Cargo.toml: add \"tools/c\" to members, or nothing builds that crate"]
    );
}

#[test]
fn a_crate_that_is_gone_is_taken_out_of_the_module() {
    assert_eq!(
        found("MODULE.bazel", "\"//b:Cargo.toml\"", "\"//b:Cargo.toml\", \"//c:Cargo.toml\""),
        [
            "MODULE.bazel: remove \"//c:Cargo.toml\" from the manifests of crate.from_cargo: it is no member of the workspace"
        ]
    );
}

#[test]
fn a_target_that_is_gone_is_taken_out() {
    assert_eq!(
        found(
            "b/BUILD.bazel",
            "DEPS = ",
            "crate_test(name = \"u_test\", crate_root = \"tests/u.rs\")\nDEPS = "
        ),
        ["b/BUILD.bazel: remove crate_test \"u_test\": Cargo has nothing at tests/u.rs"]
    );
}

#[test]
fn names_and_tags_are_those_of_cargo() {
    assert_eq!(
        found("a/BUILD.bazel", "crate_name = \"a\"", "crate_name = \"x\""),
        ["a/BUILD.bazel: set crate_name of \"a\" to \"a\", as in Cargo"]
    );
    assert_eq!(
        found("b/BUILD.bazel", "crate_binary(name = \"b\"", "crate_binary(name = \"x\""),
        ["b/BUILD.bazel: set binary_name of \"x\" to \"b\", as in Cargo"]
    );
    assert_eq!(
        found("b/BUILD.bazel", "\"manual\"", ""),
        [
            "b/BUILD.bazel: add the tag \"manual\" to \"t_test\": `cargo test` does not run it, or it needs Cargo"
        ]
    );
    assert_eq!(
        found("b/Cargo.toml", "test = false\n", ""),
        ["b/BUILD.bazel: remove the tag \"manual\" from \"t_test\": `cargo test` runs it"]
    );
}

#[test]
fn images_are_those_that_manifests_name() {
    assert_eq!(
        found(
            "b/Cargo.toml",
            "[dependencies]",
            "[package.metadata.image]\npart = \"b\"\nuser = 1\n[dependencies]"
        ),
        [
            "b/BUILD.bazel: add image(name = \"image\", part = \"b\", user = 1, ...) with the program: Cargo.toml has it \
             in [package.metadata.image]"
        ]
    );
    assert_eq!(
        found("b/BUILD.bazel", "DEPS = ", "image(name = \"image\", part = \"b\", user = 2)\nDEPS = "),
        [
            "b/BUILD.bazel: remove the image of part \"b\" and user 2: [package.metadata.image] of Cargo.toml has no \
             such image"
        ]
    );
}

#[test]
fn toolchain_and_flags_are_those_of_cargo() {
    assert_eq!(
        found("rust-toolchain.toml", "1.95.0", "1.96.0"),
        ["MODULE.bazel: set versions of rust.toolchain to [\"1.96.0\"], the channel of rust-toolchain.toml"]
    );
    assert_eq!(
        found(".bazelrc", "extra_exec_rustc_flag=--cfg=x", "extra_exec_rustc_flag=--cfg=z"),
        [
            ".bazelrc: add '--@rules_rust//rust/settings:extra_exec_rustc_flag=--cfg=x=\"y\"': .cargo/config.toml has it"
        ]
    );
}

#[test]
fn a_build_file_that_cannot_be_read_is_refused_with_its_line() {
    let workspace = Workspace::sound();
    workspace.replace("a/BUILD.bazel", "crate_library(", "crate_library(\n  *");
    let error = drift::findings(workspace.0.path()).unwrap_err().to_string();
    assert!(error.starts_with("a/BUILD.bazel:2: `*`; drift reads only calls"), "{error}");
}
