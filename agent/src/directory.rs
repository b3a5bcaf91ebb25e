//! A directory in which whole sets of files replace each other.
//!
//! ```text
//! /certs/current                       a link to the newest whole set: the one name that is exchanged
//! /certs/.generations/000001-<version>
//! /certs/.generations/000002-<version>
//! /certs/.generations/told             the set that the program was last told of
//! ```
//!
//! A set is written beside the current one and made durable before the link changes. Whatever stops the agent, `current` names a
//! whole set, the old one or the new one. Nothing else is ever renamed in the directory, so that Envoy, which watches it for moves, wakes
//! once a set.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

use lifecycle::leaf::Leaf;
use time::OffsetDateTime;

use crate::files::{self, CERTIFICATE, File, PASSWORD, VERSION};
use crate::settings::Formats;

const CURRENT: &str = "current";
const NEXT: &str = ".next";
const GENERATIONS: &str = ".generations";
const TOLD: &str = "told";

/// The current one and the one before, for whoever still reads that.
const KEPT: usize = 2;

/// A set that is current.
#[derive(Debug, PartialEq)]
pub struct Current {
    pub generation: String,
    /// The secret's version that it was made from.
    pub version: String,
    pub not_after: OffsetDateTime,
}

/// The current set; `None` when there is none, or when it lacks one of the files.
pub fn current(directory: &Path, formats: Formats) -> Option<Current> {
    let link = fs::read_link(directory.join(CURRENT)).ok()?;
    let generation = link.file_name()?.to_str()?.to_owned();
    let set = directory.join(&link);
    let whole = files::names(formats).all(|name| set.join(name).metadata().is_ok_and(|file| file.len() > 0));
    let version = fs::read_to_string(set.join(VERSION)).ok()?.trim().to_owned();
    let leaf = Leaf::from_pem(&fs::read_to_string(set.join(CERTIFICATE)).ok()?).ok()?;
    whole.then_some(Current { generation, version, not_after: leaf.not_after })
}

/// The password of the current set's PKCS#12 files: it stays the same, because programs keep it when they read the files again.
pub fn password(directory: &Path) -> Option<String> {
    fs::read_to_string(directory.join(CURRENT).join(PASSWORD)).ok().filter(|password| !password.is_empty())
}

/// Whoever changes the sets holds this; others wait. It goes with the file.
pub fn lock(directory: &Path) -> Result<fs::File, String> {
    let generations = directory.join(GENERATIONS);
    fs::create_dir_all(&generations).map_err(|error| format!("create {}: {error}", generations.display()))?;
    let lock = fs::File::open(&generations).and_then(|lock| lock.lock().map(|()| lock));
    lock.map_err(|error| format!("lock {}: {error}", generations.display()))
}

/// Makes the files current, all at once; under the lock.
pub fn install(directory: &Path, version: &str, files: &BTreeMap<&'static str, File>, disk: &mut Disk<'_>) -> Result<(), String> {
    // What cannot be removed is in nobody's way.
    let _ = tidy(directory, disk);
    let generations = directory.join(GENERATIONS);
    let newest = sorted(&generations).pop();
    let number = newest.and_then(|name| name.split('-').next()?.parse::<u64>().ok()).unwrap_or_default() + 1;
    let legible: String = version.chars().filter(|character| character.is_ascii_alphanumeric() || *character == '-').collect();
    let generation = format!("{number:06}-{legible}");

    let set = generations.join(&generation);
    disk.create(&set)?;
    for (name, file) in files {
        disk.write(&set.join(name), file)?;
    }
    disk.sync(&set)?;
    disk.sync(&generations)?;
    let next = directory.join(NEXT);
    disk.link(&Path::new(GENERATIONS).join(&generation), &next)?;
    disk.rename(&next, &directory.join(CURRENT))?;
    // The new set is in use: what fails from here on is made good by the next one.
    let _ = disk.sync(directory);
    let _ = tidy(directory, disk);
    Ok(())
}

/// Removes what was never finished, and the sets before the previous one; under the lock.
pub fn tidy(directory: &Path, disk: &mut Disk<'_>) -> Result<(), String> {
    let (generations, next) = (directory.join(GENERATIONS), directory.join(NEXT));
    let linked = fs::read_link(directory.join(CURRENT)).ok();
    let linked = linked.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    // Above the current one there can only be what was never finished.
    let (unfinished, mut kept): (Vec<_>, Vec<_>) =
        sorted(&generations).into_iter().partition(|name| Some(name.as_str()) > linked);
    kept.truncate(kept.len().saturating_sub(KEPT));
    for name in unfinished.iter().chain(&kept) {
        disk.remove(&generations.join(name))?;
    }
    if next.symlink_metadata().is_ok() {
        disk.remove(&next)?;
    }
    Ok(())
}

/// The set that the program was last told of.
pub fn told(directory: &Path) -> Option<String> {
    fs::read_to_string(directory.join(GENERATIONS).join(TOLD)).ok()
}

/// Notes that the program was told of a set. Lost or torn, the program is told once more.
pub fn note_told(directory: &Path, generation: &str) -> Result<(), String> {
    let note = directory.join(GENERATIONS).join(TOLD);
    fs::write(&note, generation).map_err(|error| format!("write {}: {error}", note.display()))
}

/// The generations by age, the oldest first.
fn sorted(generations: &Path) -> Vec<String> {
    let entries = fs::read_dir(generations).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(|first: char| first.is_ascii_digit())).collect();
    names.sort();
    names
}

/// Each change of the disk, one at a time, so that a test can stop before any of them.
pub struct Disk<'a> {
    before: &'a mut dyn FnMut(&'static str, &Path) -> io::Result<()>,
}

impl<'a> Disk<'a> {
    /// `before` sees each change first, and may have it fail.
    pub fn new(before: &'a mut dyn FnMut(&'static str, &Path) -> io::Result<()>) -> Self {
        Self { before }
    }

    fn create(&mut self, directory: &Path) -> Result<(), String> {
        self.change("create", directory, || fs::create_dir(directory))
    }

    fn write(&mut self, path: &Path, file: &File) -> Result<(), String> {
        let mut open = fs::OpenOptions::new();
        open.write(true).create_new(true).mode(if file.private { 0o600 } else { 0o644 });
        self.change("write", path, || open.open(path)?.write_all(&file.content))?;
        self.sync(path)
    }

    fn sync(&mut self, path: &Path) -> Result<(), String> {
        self.change("sync", path, || fs::File::open(path)?.sync_all())
    }

    fn link(&mut self, to: &Path, path: &Path) -> Result<(), String> {
        self.change("link", path, || symlink(to, path))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), String> {
        self.change("rename", to, || fs::rename(from, to))
    }

    fn remove(&mut self, path: &Path) -> Result<(), String> {
        self.change("remove", path, || {
            if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
        })
    }

    fn change(&mut self, what: &'static str, path: &Path, make: impl FnOnce() -> io::Result<()>) -> Result<(), String> {
        (self.before)(what, path).and_then(|()| make()).map_err(|error| format!("{what} {}: {error}", path.display()))
    }
}
