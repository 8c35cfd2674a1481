"""Container images, as `tools/images` makes them: one static program, nobody's user, the same bytes each time."""

load("@cargo_workspace//:package.bzl", "VERSION")

def image(name, part, program, user, visibility = None):
    """An archive that `docker load`, `kind load image-archive` and `ctr images import` take.

    Args:
        name: how BUILD files call it; the archive is `<name>.tar`.
        part: the image is `conduit/<part>:<version>`.
        program: a `crate_binary` that is static.
        user: the number of the user that it runs as.
        visibility: who may use it.
    """
    file = "/usr/local/bin/$$(basename $(execpath %s))" % program

    def command(architecture):
        return " ".join([
            "$(execpath //tools/oci-pack)",
            "--image conduit/%s:%s" % (part, VERSION),
            "--architecture %s" % architecture,
            "--user %d" % user,
            "--file $(execpath %s):%s" % (program, file),
            "--entrypoint %s" % file,
            "--label org.opencontainers.image.title=conduit/%s" % part,
            "--label org.opencontainers.image.version=%s" % VERSION,
            "--label org.opencontainers.image.licenses=Apache-2.0",
            "--output $@",
        ])

    native.genrule(
        name = name,
        srcs = [program],
        outs = [name + ".tar"],
        cmd = select({
            "@platforms//cpu:aarch64": command("arm64"),
            "@platforms//cpu:x86_64": command("amd64"),
        }),
        target_compatible_with = ["@platforms//os:linux"],
        tools = ["//tools/oci-pack"],
        visibility = visibility,
    )
