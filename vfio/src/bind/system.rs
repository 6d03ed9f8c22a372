//! The files, modules and owners that binding touches, behind a trait: the machine itself, or a
//! made-up tree.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::rtnetlink;

/// More than any file that is read here has on a usual machine. (A router's list of routes may
/// be longer: then it is not known what an interface carries, and that is said.)
const MOST_BYTES: u64 = 16 << 20;

/// What binding needs of a machine. Paths are absolute (`/sys/…`, `/proc/…`, `/dev/…`, `/run/…`).
///
/// Almost all of it is files, which can be made up in a folder and are read alike.
pub trait System {
    /// The content of a file.
    ///
    /// # Errors
    /// As the file system has them, and [`io::ErrorKind::FileTooLarge`] beyond 16 MiB.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// Where a symbolic link points, as it stands in the link.
    ///
    /// # Errors
    /// As the file system has them.
    fn link(&self, path: &str) -> io::Result<PathBuf>;

    /// The names in a folder, sorted. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// As the file system has them.
    fn names(&self, path: &str) -> io::Result<Vec<String>>;

    /// The number of the user that owns a file.
    ///
    /// # Errors
    /// As the file system has them.
    fn owner(&self, path: &str) -> io::Result<u32>;

    /// The IPv4 addresses, each with its interface: in /proc they are without.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if the machine does not say whose they are; else what the kernel
    /// answers, and [`io::ErrorKind::InvalidData`].
    fn ipv4_addresses(&self) -> io::Result<Vec<(String, Ipv4Addr)>>;

    /// Writes to an attribute in sysfs, in one call, as sysfs wants it. Never creates a file.
    ///
    /// # Errors
    /// What the kernel answers.
    fn write(&mut self, path: &str, text: &str) -> io::Result<()>;

    /// Makes a file have this content, wholly or not at all; creates folders as needed.
    ///
    /// # Errors
    /// As the file system has them.
    fn save(&mut self, path: &str, text: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the file system has them.
    fn remove(&mut self, path: &str) -> io::Result<()>;

    /// Gives a file to a user; its group stays.
    ///
    /// # Errors
    /// As the file system has them.
    fn set_owner(&mut self, path: &str, user: u32) -> io::Result<()>;

    /// Loads a kernel module with what it depends on. `-` and `_` are the same in its name.
    ///
    /// # Errors
    /// What `modprobe` said.
    fn load_module(&mut self, name: &str) -> io::Result<()>;

    /// Keeps every other process from the same lock until this value is dropped. To ask again is
    /// no error.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another process has it, else as the file system has them.
    fn lock(&mut self, path: &str) -> io::Result<()>;

    /// Waits a little (some 20 ms) for what the kernel or udev does on its own.
    fn pause(&mut self);
}

/// The machine that we run on.
#[derive(Debug, Default)]
pub struct Machine {
    lock: Option<File>,
}

impl Machine {
    /// The machine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl System for Machine {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        read(Path::new(path))
    }

    fn link(&self, path: &str) -> io::Result<PathBuf> {
        fs::read_link(path)
    }

    fn names(&self, path: &str) -> io::Result<Vec<String>> {
        names(Path::new(path))
    }

    fn owner(&self, path: &str) -> io::Result<u32> {
        fs::symlink_metadata(path).map(|data| data.uid())
    }

    fn ipv4_addresses(&self) -> io::Result<Vec<(String, Ipv4Addr)>> {
        rtnetlink::ipv4_addresses()
    }

    fn write(&mut self, path: &str, text: &str) -> io::Result<()> {
        write(Path::new(path), text)
    }

    fn save(&mut self, path: &str, text: &str) -> io::Result<()> {
        save(Path::new(path), text)
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn set_owner(&mut self, path: &str, user: u32) -> io::Result<()> {
        std::os::unix::fs::lchown(path, Some(user), None)
    }

    fn load_module(&mut self, name: &str) -> io::Result<()> {
        // The program that the kernel itself would call: /sbin need not be in anyone's PATH.
        let kernels = self.read("/proc/sys/kernel/modprobe").unwrap_or_default();
        let kernels = String::from_utf8_lossy(&kernels).trim().to_owned();
        let program = if Path::new(&kernels).is_file() {
            kernels
        } else {
            "modprobe".into()
        };
        let output = Command::new(&program)
            .args(["--", name])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim();
        Err(io::Error::other(if said.is_empty() {
            format!("{program}: {}", output.status)
        } else {
            said.escape_debug().to_string()
        }))
    }

    fn lock(&mut self, path: &str) -> io::Result<()> {
        self.lock = None;
        self.lock = Some(lock(Path::new(path))?);
        Ok(())
    }

    fn pause(&mut self) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A FIFO in a made-up tree must not make us wait.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

pub(super) fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let written = file.write(text.as_bytes())?;
    if written == text.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

pub(super) fn save(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let saved = fs::write(&new, text).and_then(|()| fs::rename(&new, path));
    if saved.is_err() {
        let _ = fs::remove_file(&new);
    }
    saved
}

pub(super) fn lock(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
