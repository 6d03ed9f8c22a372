//! The directory that is served.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Request;
use super::target::Target;

/// What a directory shows when it is asked for itself.
const INDEX: &str = "index.html";

/// How often a look-up is tried that a renaming beside it has disturbed.
const TRIES: usize = 8;

/// A directory, held by a descriptor. All names are resolved by the kernel, below it: neither `..`
/// nor a symbolic link leads out, whatever is renamed at the same time (`RESOLVE_BENEATH` of
/// openat2(2)). A link to an absolute path leads out always.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
}

/// A file that can be served.
#[derive(Debug)]
pub struct Document {
    /// Open for reading; a regular file.
    pub file: File,
    /// Its length when it was opened, in bytes.
    pub len: u64,
    /// When it was changed, if that is known.
    pub modified: Option<SystemTime>,
    /// Its media type, by its name.
    pub media_type: String,
}

/// What a request names.
#[derive(Debug)]
pub enum Found {
    /// A file.
    Document(Document),
    /// A directory without a slash at its end: what the client is to ask for.
    Elsewhere(String),
    /// Nothing that is served: nothing at all, no regular file, or it is not in the directory.
    Nothing,
    /// The user of this program may not read it.
    Forbidden,
    /// The system has no descriptor or no memory left, or the directory changes too much.
    Busy,
}

impl Root {
    /// Takes a directory.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::Unsupported`] if it has no openat2(2) (Linux before
    /// 5.6).
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        let root = Self { directory };
        root.open_beneath(Path::new("."))?;
        Ok(root)
    }

    /// Looks for what a request names.
    #[must_use]
    pub fn find(&self, request: &Request) -> Found {
        let found = self.document(&request.target);
        found.unwrap_or_else(|errno| match errno {
            Errno::ACCESS | Errno::PERM => Found::Forbidden,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN | Errno::INTR => Found::Busy,
            // No such file, one that is not beneath (XDEV), too many links, too long a name, a
            // device without a driver, ...
            _ => Found::Nothing,
        })
    }

    fn document(&self, target: &Target) -> Result<Found, Errno> {
        let mut path = target.path();
        let mut file = File::from(self.open_beneath(&path)?);
        let mut metadata = metadata(&file)?;
        if metadata.is_dir() {
            if !target.is_directory {
                return Ok(Found::Elsewhere(target.with_slash()));
            }
            path.push(INDEX);
            file = File::from(self.open_beneath(&path)?);
            metadata = self::metadata(&file)?;
        } else if target.is_directory {
            return Ok(Found::Nothing);
        }
        if !metadata.is_file() {
            return Ok(Found::Nothing);
        }
        Ok(Found::Document(Document {
            file,
            len: metadata.len(),
            modified: metadata.modified().ok(),
            media_type: mime_guess::from_path(&path)
                .first_or_octet_stream()
                .to_string(),
        }))
    }

    /// Opens without waiting: a pipe has nobody who writes, as a rule.
    fn open_beneath(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut result = Err(Errno::AGAIN);
        for _ in 0..TRIES {
            result = rustix::fs::openat2(&self.directory, path, flags, Mode::empty(), resolve);
            if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
                break;
            }
        }
        result
    }
}

fn metadata(file: &File) -> Result<std::fs::Metadata, Errno> {
    let failed = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    file.metadata().map_err(failed)
}
