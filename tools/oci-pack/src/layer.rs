//! The one layer of an image: a tar archive of files, links and the directories that they need, in the order of their
//! names. Everything belongs to root and was last changed in 1970.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use tar::{Builder, EntryType, Header};

use crate::args::{FileSpec, ImagePath, LinkSpec};

const DIRECTORY_MODE: u32 = 0o755;

/// Linux has no modes for links and shows this one.
const LINK_MODE: u32 = 0o777;

/// For a single file: a program with all its debug information stays below.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// What is at each path.
#[derive(Debug)]
pub(crate) struct Layer(BTreeMap<ImagePath, Entry>);

#[derive(Debug)]
enum Entry {
    Directory,
    File { content: Vec<u8>, mode: u32 },
    Link { target: String },
}

/// Why files do not make a layer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    #[error("{0} cannot be read: {1}")]
    Read(PathBuf, #[source] io::Error),
    #[error("{0} is not a file: give each file with a --file of its own")]
    NotAFile(PathBuf),
    #[error("{0} has {1} bytes, more than the {FILE_BYTES_MAX} that a file may have here: strip it")]
    TooLarge(PathBuf, u64),
    #[error("{0} is given twice: leave one out")]
    Twice(ImagePath),
    #[error("{0} is a file or link, but {1} would be in it as in a directory: move one of them")]
    InAFile(ImagePath, ImagePath),
}

impl Layer {
    /// Reads `files` and adds `links`.
    ///
    /// # Errors
    /// A source is no readable file of a sane size, or two entries are in each other's place.
    pub(crate) fn of(files: &[FileSpec], links: &[LinkSpec]) -> Result<Self, LayerError> {
        let mut entries = BTreeMap::new();
        for file in files {
            add(&mut entries, &file.path, Entry::File { content: read(&file.source)?, mode: file.mode })?;
        }
        for link in links {
            add(&mut entries, &link.path, Entry::Link { target: link.target.clone() })?;
        }
        let paths: Vec<ImagePath> = entries.keys().cloned().collect();
        for path in &paths {
            for parent in path.parents() {
                if !matches!(entries.entry(parent.clone()).or_insert(Entry::Directory), Entry::Directory) {
                    return Err(LayerError::InAFile(parent, path.clone()));
                }
            }
        }
        Ok(Self(entries))
    }

    /// Whether there is an executable file at `path`.
    pub(crate) fn is_program(&self, path: &ImagePath) -> bool {
        matches!(self.0.get(path), Some(Entry::File { mode, .. }) if mode & 0o111 != 0)
    }

    /// The layer's archive, uncompressed.
    pub(crate) fn tar(&self) -> Vec<u8> {
        let mut archive = Tar::new();
        for (path, entry) in &self.0 {
            match entry {
                Entry::Directory => archive.directory(path.relative()),
                Entry::File { content, mode } => archive.file(path.relative(), content, *mode),
                Entry::Link { target } => archive.link(path.relative(), target),
            }
        }
        archive.finish()
    }
}

fn add(entries: &mut BTreeMap<ImagePath, Entry>, path: &ImagePath, entry: Entry) -> Result<(), LayerError> {
    match entries.insert(path.clone(), entry) {
        Some(_) => Err(LayerError::Twice(path.clone())),
        None => Ok(()),
    }
}

fn read(source: &Path) -> Result<Vec<u8>, LayerError> {
    let failed = |error| LayerError::Read(source.to_owned(), error);
    let metadata = fs::metadata(source).map_err(failed)?;
    match metadata.len() {
        _ if !metadata.is_file() => Err(LayerError::NotAFile(source.to_owned())),
        bytes if bytes > FILE_BYTES_MAX => Err(LayerError::TooLarge(source.to_owned(), bytes)),
        _ => fs::read(source).map_err(failed),
    }
}

/// A tar archive in memory that holds nothing of the machine it is made on.
pub(crate) struct Tar(Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub(crate) fn file(&mut self, name: &str, content: &[u8], mode: u32) {
        let mut header = header(EntryType::Regular, mode);
        header.set_size(content.len() as u64);
        self.written(|builder| builder.append_data(&mut header, name, content));
    }

    pub(crate) fn directory(&mut self, name: &str) {
        let mut header = header(EntryType::Directory, DIRECTORY_MODE);
        self.written(|builder| builder.append_data(&mut header, format!("{name}/"), io::empty()));
    }

    fn link(&mut self, name: &str, target: &str) {
        let mut header = header(EntryType::Symlink, LINK_MODE);
        self.written(|builder| builder.append_link(&mut header, name, target));
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let finished = self.0.into_inner();
        #[expect(clippy::expect_used, reason = "a broken invariant of ours")]
        finished.expect("writing to memory does not fail")
    }

    fn written(&mut self, write: impl FnOnce(&mut Builder<Vec<u8>>) -> io::Result<()>) {
        #[expect(clippy::expect_used, reason = "a broken invariant of ours")]
        write(&mut self.0).expect("memory takes all bytes, and paths are relative and without parents");
    }
}

/// Owner and time stay at nought.
fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Sources(tempfile::TempDir);

    impl Sources {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            fs::write(directory.path().join("x"), "program").expect("written");
            Self(directory)
        }

        fn layer(&self, files: &[&str], links: &[&str]) -> Result<Layer, String> {
            let file =
                |place: &&str| format!("{}/x:{place}", self.0.path().display()).parse().expect("sound");
            let links: Vec<LinkSpec> = links.iter().map(|link| link.parse().expect("sound")).collect();
            let files: Vec<FileSpec> = files.iter().map(file).collect();
            Layer::of(&files, &links).map_err(|error| error.to_string())
        }
    }

    fn listed(tar: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().expect("an archive");
        let line = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
            let entry = entry.expect("an entry");
            let header = entry.header();
            let owner =
                (header.uid().expect("set"), header.gid().expect("set"), header.mtime().expect("set"));
            assert_eq!(owner, (0, 0, 0));
            let link = entry.link_name().expect("sound").map(|to| format!(" -> {}", to.display()));
            let path = entry.path().expect("sound").display().to_string();
            format!("{:04o} {path}{}", header.mode().expect("set"), link.unwrap_or_default())
        };
        entries.map(line).collect()
    }

    #[test]
    fn entries_are_in_order_and_in_their_directories() {
        let layer = Sources::new()
            .layer(&["/usr/lib/l.so:0644", "/bin/z", "/bin/a"], &["/usr/sbin/link=../lib/l.so"])
            .expect("sound");
        insta::assert_snapshot!(listed(&layer.tar()).join("\n"));
    }

    #[test]
    fn only_executable_files_are_programs() {
        let layer = Sources::new().layer(&["/bin/x", "/lib/l:644"], &["/bin/y=x"]).expect("sound");
        let is_program = |path: &str| layer.is_program(&path.parse().expect("sound"));
        assert!(is_program("/bin/x"));
        assert!(!["/lib/l", "/bin/y", "/bin", "/none"].into_iter().any(is_program));
    }

    #[test]
    fn entries_in_each_others_place_are_refused() {
        let sources = Sources::new();
        let twice = sources.layer(&["/bin/x"], &["/bin/x=y"]).expect_err("given twice");
        let within = sources.layer(&["/bin/x", "/bin/x/y"], &[]).expect_err("a file in a file");
        assert_eq!(twice, "/bin/x is given twice: leave one out");
        assert_eq!(
            within,
            "/bin/x is a file or link, but /bin/x/y would be in it as in a directory: move one of them"
        );
    }

    #[test]
    fn sources_that_are_no_files_are_refused() {
        let read = |path: &str| read(Path::new(path)).map(drop).expect_err(path).to_string();
        assert_eq!(read("/proc"), "/proc is not a file: give each file with a --file of its own");
        assert!(read("/nowhere/x").starts_with("/nowhere/x cannot be read: No such file"));
    }

    proptest! {
        #[test]
        fn the_order_of_arguments_does_not_matter(
            places in Just(vec!["/a/b/c", "/a/b-c", "/a/d", "/b", "/c/a:600"]).prop_shuffle(),
        ) {
            let sources = Sources::new();
            let sorted = sources.layer(&["/a/b-c", "/a/b/c", "/a/d", "/b", "/c/a:600"], &[]).expect("sound").tar();
            prop_assert!(sources.layer(&places, &[]).expect("sound").tar() == sorted);
        }
    }
}
