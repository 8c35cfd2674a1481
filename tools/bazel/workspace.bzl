"""What the workspace's Cargo.toml says about every package, for BUILD files: it is written there and nowhere else."""

def _value(rctx, section, key):
    """The string that `key` has in `[section]` of Cargo.toml."""
    within = False
    for line in rctx.read(rctx.attr.manifest).splitlines():
        if line.startswith("["):
            within = line.strip() == "[%s]" % section
        elif within and line.startswith(key + " = "):
            return line.split('"')[1]
    return fail("Cargo.toml: no `%s = \"...\"` in [%s]; every crate takes it from there" % (key, section))

def _cargo_workspace_impl(rctx):
    rctx.file("BUILD.bazel")
    rctx.file("package.bzl", '"""Written from Cargo.toml."""\n\nEDITION = "%s"\nVERSION = "%s"\n' % (
        _value(rctx, "workspace.package", "edition"),
        _value(rctx, "workspace.package", "version"),
    ))

_cargo_workspace = repository_rule(
    implementation = _cargo_workspace_impl,
    attrs = {"manifest": attr.label(default = "//:Cargo.toml")},
)

workspace = module_extension(implementation = lambda _: _cargo_workspace(name = "cargo_workspace"))
