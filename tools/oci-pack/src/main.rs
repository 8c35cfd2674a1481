//! Packs files into an archive of one container image: no registry, no container engine, and the same bytes for the same
//! files on every machine.
//!
//! The archive is two things in one, so that every loader finds what it knows: an OCI image layout (containerd, kind,
//! podman, skopeo, Docker from 25 on) and what `docker save` writes (older Dockers). Both name the same blobs.
//!
//! - `args.rs`: the command line, checked value by value
//! - `layer.rs`: files and links to the one layer
//! - `image.rs`: the image's documents, and the archive
//! - `sbom.rs`: what the image is made of, from what cargo knows
//!
//! Nothing of the machine enters: no times, no owners, no modes of files, no order of directories.

use std::{fs, io::Write, path::Path, process::ExitCode};

use clap::Parser;

use crate::{
    args::Args,
    image::{Archive, Image},
    layer::Layer,
};

mod args;
mod image;
mod layer;
mod sbom;

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
enum PackError {
    #[error(transparent)]
    Layer(#[from] layer::LayerError),
    #[error(
        "--entrypoint {0} is not a program in the image: give it with --file, and leave its mode executable"
    )]
    Entrypoint(String),
    #[error("--cargo-metadata {0} cannot be used: {1}")]
    Sbom(String, #[source] sbom::SbomError),
    #[error("{0} cannot be read: {1}")]
    Read(String, #[source] std::io::Error),
    #[error("{0} cannot be written: {1}")]
    Write(String, #[source] std::io::Error),
}

fn main() -> ExitCode {
    match pack(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn pack(args: &Args) -> Result<(), PackError> {
    let layer = Layer::of(&args.file, &args.symlink)?;
    if !layer.is_program(&args.entrypoint) {
        return Err(PackError::Entrypoint(args.entrypoint.to_string()));
    }
    let archive = Archive::of(&Image {
        name: &args.image,
        architecture: args.architecture,
        entrypoint: &args.entrypoint,
        user: args.user,
        labels: args.label.iter().cloned().collect(),
        layer: layer.tar(),
    });
    // Before the archive, which is what others wait for.
    if let Some(path) = &args.sbom {
        write(path, &bill(args, &archive)?)?;
    }
    write(&args.output, archive.bytes())?;
    let line = format!("{} {} {}\n", args.image, archive.digest(), args.output.display());
    std::io::stdout()
        .write_all(line.as_bytes())
        .map_err(|error| PackError::Write("standard output".to_owned(), error))
}

fn bill(args: &Args, archive: &Archive) -> Result<Vec<u8>, PackError> {
    let metadata = match &args.cargo_metadata {
        Some(path) => Some(fs::read(path).map_err(|error| PackError::Read(shown(path), error))?),
        None => None,
    };
    let cargo = metadata.as_deref().zip(args.cargo_package.as_deref());
    sbom::of(&args.image, archive.digest(), cargo, &args.component).map_err(|error| {
        PackError::Sbom(args.cargo_metadata.as_deref().map(shown).unwrap_or_default(), error)
    })
}

/// In one step, so that nobody loads half an archive.
fn write(path: &Path, bytes: &[u8]) -> Result<(), PackError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".part");
    fs::write(&unfinished, bytes)
        .and_then(|()| fs::rename(&unfinished, path))
        .map_err(|error| PackError::Write(shown(path), error))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
