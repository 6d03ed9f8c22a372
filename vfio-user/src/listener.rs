//! The server's socket in the file system.

use std::fmt;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::session::Session;

/// Why a socket could not be made.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BindError {
    /// A server listens there.
    InUse(PathBuf),
    /// There is something else of this name, and it is no socket.
    NoSocket(PathBuf),
    /// A system call failed.
    System {
        /// The socket.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(
                f,
                "another server listens at {}: end it first, or choose another name",
                path.display()
            ),
            Self::NoSocket(path) => write!(
                f,
                "{} is there and is no socket: choose another name",
                path.display()
            ),
            Self::System { path, errno } => {
                write!(f, "cannot make the socket {}: {errno}", path.display())?;
                match *errno {
                    Errno::NOENT => write!(f, "; does its directory exist?"),
                    Errno::NAMETOOLONG | Errno::INVAL => {
                        write!(f, "; a socket's name has at most 107 bytes")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for BindError {}

/// A socket at which a server waits for clients. Its file is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, so that nobody else's is removed.
    file: Option<(u64, u64)>,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Listener {
    /// Makes the socket at `path`. A socket there at which nobody listens, such as a killed server
    /// leaves, is replaced.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let system = |errno| BindError::System {
            path: path.to_owned(),
            errno,
        };
        // One at a time, or two servers could replace the same old socket.
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = directory.unwrap_or(Path::new("."));
        let directory = rustix::fs::open(directory, flags, Mode::empty()).map_err(system)?;
        rustix::fs::flock(&directory, FlockOperation::LockExclusive).map_err(system)?;
        if let Ok(there) = fs::symlink_metadata(path) {
            if !there.file_type().is_socket() {
                return Err(BindError::NoSocket(path.to_owned()));
            }
            if UnixStream::connect(path).is_ok() {
                return Err(BindError::InUse(path.to_owned()));
            }
            log::debug!("nobody listens at {}: it is replaced", path.display());
            fs::remove_file(path).map_err(|error| system(number(&error)))?;
        }
        let socket = UnixListener::bind(path).map_err(|error| system(number(&error)))?;
        let file = fs::symlink_metadata(path).ok();
        let listener = Self {
            socket,
            path: path.to_owned(),
            file: file.map(|file| (file.dev(), file.ino())),
        };
        let set = listener.socket.set_nonblocking(true);
        set.map_err(|error| system(number(&error)))?;
        Ok(listener)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next client, if one waits. Never blocks: poll the file descriptor for reading.
    ///
    /// # Errors
    /// What the system said.
    pub fn accept(&self) -> Result<Option<Session>, Errno> {
        Ok(self.take()?.map(Session::new))
    }

    /// Turns the next client away, if one waits, with [`Errno::BUSY`]; says whether there was one.
    ///
    /// # Errors
    /// What the system said.
    pub fn refuse(&self) -> Result<bool, Errno> {
        let Some(socket) = self.take()? else {
            return Ok(false);
        };
        Session::refuse(&socket, Errno::BUSY);
        Ok(true)
    }

    fn take(&self) -> Result<Option<OwnedFd>, Errno> {
        match self.socket.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true).map_err(|e| number(&e))?;
                Ok(Some(stream.into()))
            }
            Err(error) => match number(&error) {
                Errno::AGAIN | Errno::INTR | Errno::CONNABORTED => Ok(None),
                errno => Err(errno),
            },
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let now = fs::symlink_metadata(&self.path).ok();
        if self.file.is_some() && now.map(|file| (file.dev(), file.ino())) == self.file {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn number(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}
