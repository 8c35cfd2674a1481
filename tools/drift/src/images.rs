//! A program's image is called the same and runs as the same user, whoever packs it.

use crate::{
    Finding,
    build::{self, Build},
    cargo::{Image, Package},
};

pub(crate) fn findings(package: &Package, build: &Build) -> Vec<Finding> {
    let wanted = package.image.as_ref();
    let is_wanted = |found: &build::Image| wanted.is_some_and(|image| is_same(image, found));
    let missing = wanted.filter(|image| !build.images.iter().any(|found| is_same(image, found)));
    let surplus = build.images.iter().filter(|found| !is_wanted(found));
    let remedies = missing.map(addition).into_iter().chain(surplus.map(removal));
    remedies.map(|remedy| Finding { file: build.file.clone(), remedy }).collect()
}

fn is_same(image: &Image, found: &build::Image) -> bool {
    image.part == found.part && image.user.to_string() == found.user
}

fn addition(Image { part, user }: &Image) -> String {
    format!(
        "add image(name = \"image\", part = \"{part}\", user = {user}, ...) with the program: Cargo.toml has it in \
         [package.metadata.image]"
    )
}

fn removal(build::Image { part, user }: &build::Image) -> String {
    format!(
        "remove the image of part \"{part}\" and user {user}: [package.metadata.image] of Cargo.toml has no such image"
    )
}
