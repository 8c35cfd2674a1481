"""The targets of a Cargo package: one macro for each kind that Cargo knows.

Third-party dependencies, the version and the edition come from Cargo.toml. A BUILD file lists the crates of this
workspace that a target uses, the files besides Rust that it reads, and who may depend on it.
"""

load("@cargo_workspace//:package.bzl", "EDITION", "VERSION")
load("@crates//:defs.bzl", "aliases", "all_crate_deps")
load("@rules_rust//rust:defs.bzl", "rust_binary", "rust_library", "rust_test")

def crate_library(
        name,
        crate_name,
        deps = [],
        compile_data = [],
        test_deps = [],
        test_data = [],
        visibility = None):
    """A library, and `<name>_unit_test` with the tests inside it.

    Args:
        name: how BUILD files call it.
        crate_name: how Rust calls it.
        deps: crates of this workspace that it uses.
        compile_data: what it includes with `include_str!` and the like.
        test_deps: crates of this workspace that only its unit tests use.
        test_data: what its unit tests read when they run, snapshots for instance.
        visibility: the crates that may depend on it.
    """
    rust_library(
        name = name,
        srcs = native.glob(
            ["src/**/*.rs"],
            exclude = ["src/main.rs"],
        ),
        aliases = aliases(),
        compile_data = compile_data,
        crate_name = crate_name,
        edition = EDITION,
        proc_macro_deps = all_crate_deps(proc_macro = True),
        version = VERSION,
        visibility = visibility,
        deps = deps + all_crate_deps(normal = True),
    )
    _unit_test(name, crate_name, test_deps, test_data)

def crate_binary(
        name,
        binary_name = None,
        deps = [],
        compile_data = [],
        test_deps = [],
        test_data = [],
        static = False,
        visibility = None):
    """A program: `src/main.rs` and what it declares. Without a library beside it there is `<name>_unit_test` too.

    Args:
        name: how BUILD files call it.
        binary_name: how the file is called, where a library has that name already.
        deps: crates of this workspace that it uses, its own library among them.
        compile_data: what it includes with `include_str!` and the like.
        test_deps: crates of this workspace that only its unit tests use.
        test_data: what its unit tests read when they run.
        static: whether it needs no library at run time on Linux, as in an image that has nothing else.
        visibility: who may use it; nobody outside the package unless told.
    """
    binary_name = binary_name or name
    crate_name = binary_name.replace("-", "_")
    rust_binary(
        name = name,
        srcs = native.glob(["src/**/*.rs"]),
        aliases = aliases(),
        binary_name = binary_name,
        compile_data = compile_data,
        crate_name = crate_name,
        crate_root = "src/main.rs",
        edition = EDITION,
        proc_macro_deps = all_crate_deps(proc_macro = True),
        rustc_flags = select({
            "@platforms//os:linux": ["-Ctarget-feature=+crt-static"],
            "//conditions:default": [],
        }) if static else [],
        version = VERSION,
        visibility = visibility,
        deps = deps + all_crate_deps(normal = True),
    )
    if not native.glob(["src/lib.rs"], allow_empty = True):
        _unit_test(name, crate_name, test_deps, test_data)

def crate_example(name, crate_root, deps = []):
    """An example or a benchmark: built, so that it does not rot, and started by hand.

    Args:
        name: how BUILD files call it.
        crate_root: its only file.
        deps: crates of this workspace that it uses.
    """
    rust_binary(
        name = name,
        testonly = True,
        srcs = [crate_root],
        aliases = aliases(
            normal_dev = True,
            proc_macro_dev = True,
        ),
        crate_root = crate_root,
        edition = EDITION,
        proc_macro_deps = all_crate_deps(
            proc_macro = True,
            proc_macro_dev = True,
        ),
        version = VERSION,
        deps = deps + all_crate_deps(
            normal = True,
            normal_dev = True,
        ),
    )

def crate_test(
        name,
        crate_root,
        srcs = [],
        binary = None,
        compile_data = [],
        data = [],
        deps = [],
        size = "medium",
        tags = []):
    """An integration test.

    Args:
        name: how BUILD files call it.
        crate_root: `tests/<cargo's name>.rs`, or `tests/<cargo's name>/main.rs` with what lies beside it.
        srcs: further files, that several tests share.
        binary: the program that it starts, and finds as Cargo's tests do.
        compile_data: what it includes with `include_str!` and the like.
        data: what it reads when it runs.
        deps: crates of this workspace that it uses.
        size: how long it may take; Bazel's word.
        tags: `manual` for what needs root or a cluster; `needs-cargo` beside it for what cannot be sandboxed.
    """
    folder, _, file = crate_root.rpartition("/")
    in_folder = file == "main.rs"
    rust_test(
        name = name,
        size = size,
        srcs = srcs + (native.glob([folder + "/**/*.rs"]) if in_folder else [crate_root]),
        aliases = aliases(
            normal_dev = True,
            proc_macro_dev = True,
        ),
        compile_data = compile_data,
        # Snapshots are called by it.
        crate_name = folder.rpartition("/")[2] if in_folder else file.removesuffix(".rs"),
        crate_root = crate_root,
        data = data + ([binary] if binary else []),
        edition = EDITION,
        env = _TEST_ENV,
        proc_macro_deps = all_crate_deps(
            proc_macro = True,
            proc_macro_dev = True,
        ),
        rustc_env = _found_at_run_time(binary),
        tags = tags,
        version = VERSION,
        deps = deps + all_crate_deps(
            normal = True,
            normal_dev = True,
        ),
    )

def _unit_test(name, crate_name, deps, data):
    """The tests inside the crate of the target `name`."""
    rust_test(
        name = name + "_unit_test",
        aliases = aliases(
            normal_dev = True,
            proc_macro_dev = True,
        ),
        crate = ":" + name,
        # Snapshots are called by it.
        crate_name = crate_name,
        data = data,
        edition = EDITION,
        env = _TEST_ENV,
        proc_macro_deps = all_crate_deps(proc_macro_dev = True),
        rustc_env = _found_at_run_time(),
        version = VERSION,
        deps = deps + all_crate_deps(normal_dev = True),
    )

# Snapshots lie where the sources do, and a test never writes them.
_TEST_ENV = {
    "INSTA_UPDATE": "no",
    "INSTA_WORKSPACE_ROOT": ".",
}

def _found_at_run_time(binary = None):
    """The paths that Cargo compiles into tests, as they are where Bazel runs them: from the workspace's root."""
    paths = {"CARGO_MANIFEST_DIR": native.package_name()}
    if binary:
        paths["CARGO_BIN_EXE_" + binary.rpartition(":")[2]] = "$(rootpath %s)" % binary
    return paths
