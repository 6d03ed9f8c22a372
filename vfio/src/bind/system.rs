//! The files, modules and owners that binding touches, behind a trait: the machine itself, or a
//! made-up tree.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
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

    /// Makes a file have this content, wholly or not at all; creates its folder and the one above
    /// as needed. Nobody else may write there: what is read from there later is believed.
    ///
    /// # Errors
    /// As the file system has them; [`io::ErrorKind::PermissionDenied`] if somebody else may write
    /// to one of these folders.
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
    /// [`io::ErrorKind::WouldBlock`] if another process has it, else as for [`save`](Self::save).
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
        run(&program, name)
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

/// Runs `PROGRAM -- NAME`, out of reach of Ctrl-C: a module is loaded wholly, and whoever asked
/// sees the interruption afterwards.
fn run(program: &str, name: &str) -> io::Result<()> {
    let output = Command::new(program)
        .args(["--", name])
        .stdin(Stdio::null())
        .process_group(0)
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
    own_folder(path)?;
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    // One that was left behind by a process that was killed.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let saved = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&new)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&new, path));
    if saved.is_err() {
        let _ = fs::remove_file(&new);
    }
    saved
}

/// The folder of a file and the one above it, made if they are missing, whatever the umask: root's
/// alone (ours) to write. Else anybody could put a link there, or other words into a file.
fn own_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)?;
    let ours = rustix::process::geteuid().as_raw();
    for folder in folder.ancestors().take(2) {
        let found = fs::symlink_metadata(folder)?;
        let (owner, mode) = (found.uid(), found.mode() & 0o7777);
        if !found.is_dir() || owner != ours || mode & 0o022 != 0 {
            let why = format!(
                "{} is not to be trusted, as others may write to it (owner {owner}, mode {mode:o}): \
                 remove it",
                folder.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
    }
    Ok(())
}

pub(super) fn lock(path: &Path) -> io::Result<File> {
    own_folder(path)?;
    // Who can open it can keep everybody else from it, by reading as well.
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder with `bind/0000:03:00.0` in it, as `/run/pagewire` is.
    fn pagewire() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let run = tempfile::tempdir().unwrap();
        let file = run.path().join("pagewire/bind/0000:03:00.0");
        let lock = run.path().join("pagewire/bind/lock");
        (run, file, lock)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn what_others_may_write_to_is_refused() {
        for (folder, bits) in [("pagewire", 0o777), ("pagewire/bind", 0o775)] {
            let (run, file, lock_file) = pagewire();
            save(&file, "driver=e1000e\n").unwrap();
            drop(lock(&lock_file).unwrap());
            let folder = run.path().join(folder);
            fs::set_permissions(&folder, fs::Permissions::from_mode(bits)).unwrap();
            for result in [save(&file, "new"), lock(&lock_file).map(drop)] {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                let text = error.to_string();
                assert!(text.contains(&*folder.to_string_lossy()), "{text}");
            }
            assert_eq!(fs::read_to_string(&file).unwrap(), "driver=e1000e\n");
        }
        // A link to a folder that is fine.
        let (run, file, lock_file) = pagewire();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::create_dir(run.path().join("pagewire")).unwrap();
        fs::set_permissions(
            run.path().join("pagewire"),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        symlink(elsewhere.path(), run.path().join("pagewire/bind")).unwrap();
        assert!(save(&file, "").is_err() && lock(&lock_file).is_err());
    }

    #[test]
    fn no_link_is_followed() {
        let (run, file, lock_file) = pagewire();
        save(&file, "first").unwrap();
        assert_eq!(mode(&file) & 0o133, 0);
        let precious = run.path().join("precious");
        fs::write(&precious, "as it was").unwrap();
        symlink(&precious, file.with_file_name("0000:03:00.0.new")).unwrap();
        save(&file, "second").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "second");
        symlink(&precious, &lock_file).unwrap();
        assert!(lock(&lock_file).is_err());
        assert_eq!(fs::read_to_string(&precious).unwrap(), "as it was");
        fs::remove_file(&lock_file).unwrap();
        // One that everybody may read, as an older version left it.
        fs::write(&lock_file, "").unwrap();
        fs::set_permissions(&lock_file, fs::Permissions::from_mode(0o666)).unwrap();
        let held = lock(&lock_file).unwrap();
        assert_eq!(mode(&lock_file), 0o600);
        let second = lock(&lock_file).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(held);
    }

    #[test]
    fn modprobe_does_not_get_ctrl_c() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("modprobe");
        // Field 5 of the line is the process group (proc_pid_stat(5)).
        let script = "#!/bin/sh\nread -r line </proc/self/stat\nset -- $line\necho \"group $5\" >&2\nexit 1\n";
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let said = run(&program.to_string_lossy(), "vfio-pci")
            .unwrap_err()
            .to_string();
        let group: i32 = said.strip_prefix("group ").unwrap().parse().unwrap();
        let ours = rustix::process::getpgrp().as_raw_nonzero().get();
        assert_ne!(group, ours);
        assert!(run("/nowhere/modprobe", "x").is_err());
    }
}
