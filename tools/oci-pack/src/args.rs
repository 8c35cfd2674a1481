//! The command line.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::{ArgGroup, Parser, ValueEnum};

/// Packs files into a container image archive, the same bytes each time
#[derive(Debug, Parser)]
#[command(name = "oci-pack", version)]
#[command(group = ArgGroup::new("contents").args(["cargo_metadata", "component"]).multiple(true))]
pub(crate) struct Args {
    /// What the image is called, with its tag
    #[arg(long, value_name = "NAME:TAG")]
    pub(crate) image: ImageName,
    /// The archive to write
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// A file and where it goes; its mode there is 0755 unless said otherwise
    #[arg(long, value_name = "SOURCE:/PATH[:MODE]", required = true)]
    pub(crate) file: Vec<FileSpec>,
    /// A symbolic link and where it leads
    #[arg(long, value_name = "/PATH=TARGET")]
    pub(crate) symlink: Vec<LinkSpec>,
    /// The program that a container of the image runs
    #[arg(long, value_name = "/PATH")]
    pub(crate) entrypoint: ImagePath,
    /// The user that it runs as
    #[arg(long, value_name = "UID", value_parser = user, allow_negative_numbers = true)]
    pub(crate) user: u32,
    /// A label of the image
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// What the programs are compiled for
    #[arg(long, value_enum, default_value_t = Architecture::Amd64)]
    pub(crate) architecture: Architecture,
    /// The bill of materials to write, in CycloneDX
    #[arg(long, value_name = "FILE", requires = "contents")]
    pub(crate) sbom: Option<PathBuf>,
    /// What `cargo metadata --format-version 1` printed, for the bill of materials
    #[arg(long, value_name = "FILE", requires = "sbom", requires = "cargo_package")]
    pub(crate) cargo_metadata: Option<PathBuf>,
    /// The package that the program was built from, for the bill of materials
    #[arg(long, value_name = "NAME", requires = "cargo_metadata")]
    pub(crate) cargo_package: Option<String>,
    /// A package URL of something in the image that cargo was not asked about, for the bill of materials
    #[arg(long, value_name = "PURL", requires = "sbom")]
    pub(crate) component: Vec<PackageUrl>,
}

/// Names of architectures as Go, and with it OCI, has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// The name of an image with its tag, such as `conduit/proxy:0.6.0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageName {
    pub(crate) repository: String,
    pub(crate) tag: String,
}

impl ImageName {
    /// With the registry that a name without one means.
    pub(crate) fn with_registry(&self) -> String {
        let registry = self.repository.split_once('/').map_or("", |(first, _)| first);
        let prefix = match self.repository.contains('/') {
            false => "docker.io/library/",
            true if registry.contains(['.', ':']) || registry == "localhost" => "",
            true => "docker.io/",
        };
        format!("{prefix}{self}")
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

impl FromStr for ImageName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "use a name in lower case and a tag, such as conduit/proxy:0.6.0";
        let (repository, tag) = text.rsplit_once(':').ok_or(expected)?;
        let name =
            |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || b"._-:".contains(&octet);
        let part =
            |part: &str| part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.bytes().all(name);
        let of_tag = |octet: u8| octet.is_ascii_alphanumeric() || b"._-".contains(&octet);
        // The length is that of the OCI distribution specification.
        let tag_is_sound =
            (1..=128).contains(&tag.len()) && tag.bytes().all(of_tag) && !tag.starts_with(['.', '-']);
        match tag_is_sound && repository.split('/').all(part) {
            true => Ok(Self { repository: repository.to_owned(), tag: tag.to_owned() }),
            false => Err(expected),
        }
    }
}

/// A path in the image, absolute and in its simplest form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ImagePath(String);

impl ImagePath {
    /// As archives have it: without the slash in front.
    pub(crate) fn relative(&self) -> &str {
        &self.0[1..]
    }

    /// The directories above it, from the top.
    pub(crate) fn parents(&self) -> impl Iterator<Item = ImagePath> {
        self.0.match_indices('/').skip(1).map(|(end, _)| ImagePath(self.0[..end].to_owned()))
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ImagePath {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "use an absolute path without . and .., such as /usr/local/bin/conduit-proxy";
        let part = |part: &str| !["", ".", ".."].contains(&part) && !part.contains(char::is_control);
        match text.strip_prefix('/') {
            Some(rest) if text.len() <= 4096 && rest.split('/').all(part) => Ok(Self(text.to_owned())),
            _ => Err(expected),
        }
    }
}

/// A file to pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileSpec {
    pub(crate) source: PathBuf,
    pub(crate) path: ImagePath,
    /// Permissions, as chmod has them.
    pub(crate) mode: u32,
}

impl FromStr for FileSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // From the right: a path in the image has no colon in front of a slash, a source may.
        let position = text.rfind(":/").filter(|position| *position > 0);
        let position =
            position.ok_or("use SOURCE:/PATH or SOURCE:/PATH:MODE, such as target/x:/bin/x:0755")?;
        let (path, mode) = match text[position + 1..].split_once(':') {
            Some((path, mode)) => (path, permissions(mode)?),
            None => (&text[position + 1..], 0o755),
        };
        Ok(Self { source: text[..position].into(), path: path.parse()?, mode })
    }
}

fn permissions(text: &str) -> Result<u32, String> {
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777);
    mode.ok_or_else(|| format!("the mode {text} is none: use three octal digits, such as 755 or 0644"))
}

/// A symbolic link to pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkSpec {
    pub(crate) path: ImagePath,
    pub(crate) target: String,
}

impl FromStr for LinkSpec {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "use /PATH=TARGET, such as /usr/sbin/iptables=xtables-nft-multi";
        let (path, target) = text.split_once('=').ok_or(expected)?;
        match target.is_empty() || target.contains(char::is_control) {
            true => Err(expected),
            false => Ok(Self { path: path.parse()?, target: target.to_owned() }),
        }
    }
}

/// A package URL with a name and a version, such as `pkg:deb/debian/libc6@2.36-9`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackageUrl {
    pub(crate) text: String,
    pub(crate) name: String,
    pub(crate) version: String,
}

impl FromStr for PackageUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "use a package URL with a version, such as pkg:deb/debian/libc6@2.36-9";
        let path = text.strip_prefix("pkg:").ok_or(expected)?;
        let path = path.split(['?', '#']).next().unwrap_or(path);
        let (place, version) = path.rsplit_once('@').ok_or(expected)?;
        let (_, name) = place.rsplit_once('/').ok_or(expected)?;
        match name.is_empty() || version.is_empty() || text.contains(char::is_whitespace) {
            true => Err(expected),
            false => Ok(Self { text: text.to_owned(), name: name.to_owned(), version: version.to_owned() }),
        }
    }
}

fn user(text: &str) -> Result<u32, &'static str> {
    let expected = "use the number of a user, from 1 on: an image's program does not run as root";
    text.parse().ok().filter(|uid| (1..u32::MAX).contains(uid)).ok_or(expected)
}

fn label(text: &str) -> Result<(String, String), &'static str> {
    let expected = "use KEY=VALUE, such as org.opencontainers.image.version=0.6.0";
    let (key, value) = text.split_once('=').ok_or(expected)?;
    match key.is_empty() || key.contains(char::is_whitespace) {
        true => Err(expected),
        false => Ok((key.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_are_refused_with_flag_value_and_remedy() {
        let bad = [
            ["--image", "proxy"],
            ["--image", "Conduit/proxy:1"],
            ["--image", "conduit//proxy:1"],
            ["--image", "conduit/proxy:"],
            ["--file", "x"],
            ["--file", ":/bin/x"],
            ["--file", "x:/bin/../x"],
            ["--file", "x:/bin/x:rwx"],
            ["--file", "x:/bin/x:4755"],
            ["--symlink", "/bin/x"],
            ["--symlink", "bin/x=y"],
            ["--entrypoint", "bin/x"],
            ["--user", "0"],
            ["--user", "-1"],
            ["--user", "nobody"],
            ["--label", "version"],
            ["--architecture", "x86_64"],
            ["--component", "libc6"],
            ["--component", "pkg:deb/debian/libc6"],
        ];
        let errors = bad.map(|[flag, value]| {
            let error = Args::try_parse_from(["oci-pack", flag, value]).expect_err(value).to_string();
            assert!(error.contains(flag), "{error}");
            error.lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
        });
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn a_file_has_a_source_a_place_and_a_mode() {
        let file: FileSpec = "a:b/c:/usr/lib/d.so:0644".parse().expect("sound");
        assert_eq!(
            (file.source.to_str(), file.path.relative(), file.mode),
            (Some("a:b/c"), "usr/lib/d.so", 0o644)
        );
        assert_eq!("/x:/y".parse::<FileSpec>().expect("sound").mode, 0o755);
        let parents: Vec<String> = file.path.parents().map(|path| path.to_string()).collect();
        assert_eq!(parents, ["/usr", "/usr/lib"]);
    }

    #[test]
    fn a_name_without_a_registry_means_dockers() {
        for (name, full) in [
            ("conduit/proxy:1", "docker.io/conduit/proxy:1"),
            ("proxy:1", "docker.io/library/proxy:1"),
            ("ghcr.io/conduit/proxy:1", "ghcr.io/conduit/proxy:1"),
            ("localhost:5000/proxy:1", "localhost:5000/proxy:1"),
        ] {
            assert_eq!(name.parse::<ImageName>().expect("sound").with_registry(), full);
        }
    }

    #[test]
    fn a_package_url_has_a_name_and_a_version() {
        let url: PackageUrl = "pkg:deb/debian/libc6@2.36-9?arch=amd64".parse().expect("sound");
        assert_eq!((url.name.as_str(), url.version.as_str()), ("libc6", "2.36-9"));
    }
}
