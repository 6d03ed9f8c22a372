//! Opening a userfaultfd, and what came of it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::ProtectError;
use super::brought::{MappedMemory, Registered};
use super::error::{Attempt, Way};
use super::handler::Handler;
use super::memory::{Arena, Layout};
use super::shared::Shared;
use super::signal::Served;
use super::userfault::{NotOpened, Source, UserFault};
use crate::pages::HUGE;
use crate::space::lock;

/// Whose writes to lent pages are made to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Writes by the program wait, and writes by the kernel for it too (`read(2)` into a lent
    /// page).
    Full,
    /// Writes by the program wait; a system call that would write to a lent page by pointer fails
    /// with EFAULT, or stops before it. [`Buffer::bytes_mut`](super::Buffer::bytes_mut) waits
    /// first.
    UserOnly,
    /// As [`UserOnly`](Self::UserOnly), but there is no thread that serves writes: the kernel sends
    /// SIGBUS to the thread that writes, whose handler clears the page, or sleeps. A write to a page
    /// that is protected still costs a tenth, and nobody can die.
    Signal,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => {
                "full: writes by system calls to lent pages wait, as those of the program"
            }
            Self::UserOnly => {
                "user mode only: writes by system calls to lent pages fail with EFAULT"
            }
            Self::Signal => {
                "by SIGBUS: who writes serves himself; writes by system calls to lent pages fail \
                 with EFAULT"
            }
        })
    }
}

/// Which userfaultfd is wanted.
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum Choice {
    /// The full one if it can be had, by the system call or `/dev/userfaultfd`, else that for user
    /// mode only.
    #[default]
    Best,
    /// The full one, or an error.
    Full,
    /// That for user mode only, which needs no privilege.
    UserOnly,
    /// That for user mode only, and a handler of SIGBUS for the whole process, which stays there and
    /// leaves other faults to the handler that was there before. The program must not replace it, nor
    /// block SIGBUS on a thread that writes: a fault would end it.
    Signal,
    /// A full one by a descriptor of `/dev/userfaultfd` that somebody with the right to open it has
    /// passed in.
    Device(OwnedFd),
}

/// What has been counted since the protector was opened, and what holds now. Bytes count in whole
/// pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ProtectCounters {
    /// Bytes of all arenas that can be protected now.
    pub registered_bytes: u64,
    /// Bytes that are protected now, lent or not.
    pub protected_bytes: u64,
    /// Bytes that are in pages that are lent now.
    pub lent_bytes: u64,
    /// Bytes of lent pages in whose place the program has others now.
    pub away_bytes: u64,
    /// Calls that set a protection.
    pub protects: u64,
    /// Calls that cleared one.
    pub clears: u64,
    /// Writes that were stopped.
    pub faults: u64,
    /// Those of them that had to wait for a release.
    pub waits: u64,
    /// Pages that were put in the place of lent ones, so that a writer need not wait.
    pub departures: u64,
    /// Lent pages that came back to their place.
    pub returns: u64,
}

/// Stops writes to memory that is lent, until it is lent no more.
///
/// Clones are the same protector. Its thread ends when the last of them is dropped, with the last
/// arena, buffer and loan of it.
#[derive(Clone, Debug)]
pub struct Protector {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    /// Serves until it is dropped.
    #[cfg_attr(not(test), expect(dead_code, reason = "serves until it is dropped"))]
    server: Server,
    mode: Mode,
    way: Way,
}

/// Who serves writes.
#[derive(Debug)]
enum Server {
    Thread(#[cfg_attr(not(test), expect(dead_code, reason = "ends when dropped"))] Handler),
    Signal(#[expect(dead_code, reason = "serves as long as it exists")] Served),
}

impl Protector {
    /// Opens the userfaultfd that is wanted, and starts the thread that serves it, if any.
    ///
    /// # Errors
    /// [`ProtectError::NoUserfault`] with all that was tried,
    /// [`ProtectError::NoWriteProtection`], or what the system said.
    pub fn open(choice: Choice) -> Result<Self, ProtectError> {
        let signal = matches!(choice, Choice::Signal);
        let (userfault, way) = find(choice, signal)?;
        let mode = match way {
            Way::UserMode if signal => Mode::Signal,
            Way::UserMode => Mode::UserOnly,
            Way::Call | Way::Device | Way::Passed => Mode::Full,
        };
        log::debug!("writes to lent pages are stopped by {way}, {mode}");
        let shared = Arc::new(Shared::new(userfault));
        let server = if signal {
            Server::Signal(Served::start(&shared)?)
        } else {
            Server::Thread(Handler::start(&shared)?)
        };
        let inner = Inner {
            shared,
            server,
            mode,
            way,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Whose writes wait.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.inner.mode
    }

    /// Where the userfaultfd is from.
    #[must_use]
    pub fn way(&self) -> Way {
        self.inner.way
    }

    /// Whether the thread that serves writes is there. If it is not, nothing is lent any more. Always
    /// in [`Mode::Signal`], where there is none.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.inner.shared.alive.load(Ordering::SeqCst)
    }

    /// Memory of at least `len` bytes, to be handed out as buffers, and protected in pages of the
    /// system (4 KiB, most often).
    ///
    /// # Errors
    /// [`ProtectError::Empty`], [`ProtectError::HandlerGone`], or what the system said.
    pub fn arena(&self, len: usize) -> Result<Arena, ProtectError> {
        let layout = Layout {
            len,
            page: rustix::param::page_size(),
        };
        Arena::new(self, layout)
    }

    /// As [`arena`](Self::arena), protected in whole huge pages of 2 MiB, which costs as much as
    /// protecting one small page: for buffers that are long. Every buffer has its own huge pages,
    /// and is lent in whole ones. In huge pages that were set aside (`vm.nr_hugepages`) if there
    /// are enough, else in transparent ones if there are, else in small ones.
    ///
    /// On a [`PollingThread`](super::PollingThread) nobody gets at lent ones that were set aside.
    ///
    /// # Errors
    /// As for [`arena`](Self::arena).
    pub fn huge_arena(&self, len: usize) -> Result<Arena, ProtectError> {
        let layout = Layout { len, page: HUGE };
        Arena::new(self, layout)
    }

    /// Watches memory that the caller brings, for as long as anything of it is used. It is given back
    /// to nobody, but dropped with the last clone, region and loan.
    ///
    /// # Errors
    /// [`ProtectError::Empty`]; [`ProtectError::Unaligned`]; [`ProtectError::HandlerGone`]; or what
    /// the system said. The memory is dropped then.
    pub fn register<M: MappedMemory>(&self, memory: M) -> Result<Registered<M>, ProtectError> {
        Registered::new(self, memory)
    }

    /// How many bytes, in whole pages, may be lent at once of all that this protector watches. At
    /// first there is no limit (`u64::MAX`). What is lent already stays so. A loan that would exceed
    /// it is refused ([`ProtectError::OverLimit`]), and its bytes have to be copied.
    pub fn set_limit(&self, bytes: u64) {
        self.shared().set_limit(bytes);
    }

    /// What [`set_limit`](Self::set_limit) has set.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.shared().limit()
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> ProtectCounters {
        let shared = &self.inner.shared;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let mut counters = ProtectCounters {
            protects: read(&shared.tally.protects),
            clears: read(&shared.tally.clears),
            faults: read(&shared.tally.faults),
            waits: read(&shared.tally.waits),
            departures: read(&shared.tally.departures),
            returns: read(&shared.tally.returns),
            ..ProtectCounters::default()
        };
        for watch in lock(&shared.watches).iter() {
            let [registered, protected, lent, away] = watch.bytes().map(|bytes| bytes as u64);
            counters.registered_bytes += registered;
            counters.protected_bytes += protected;
            counters.lent_bytes += lent;
            counters.away_bytes += away;
        }
        counters
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    #[cfg(test)]
    pub(crate) fn shared_for_tests(&self) -> Arc<Shared> {
        Arc::clone(&self.inner.shared)
    }

    /// Lets the handler die of a panic, and waits until it is dead; false if there is none.
    #[cfg(test)]
    pub(crate) fn kill_handler(&self) -> bool {
        let Server::Thread(handler) = &self.inner.server else {
            return false;
        };
        self.inner.shared.doomed.store(true, Ordering::SeqCst);
        handler.rouse();
        while self.is_alive() {
            std::thread::yield_now();
        }
        true
    }
}

/// The first way that leads to a userfaultfd.
fn find(choice: Choice, signal: bool) -> Result<(UserFault, Way), ProtectError> {
    let ways: &[Way] = match choice {
        Choice::Best => &[Way::Call, Way::Device, Way::UserMode],
        Choice::Full => &[Way::Call, Way::Device],
        Choice::UserOnly | Choice::Signal => &[Way::UserMode],
        Choice::Device(_) => &[Way::Passed],
    };
    let passed = match choice {
        Choice::Device(device) => Some(device),
        Choice::Best | Choice::Full | Choice::UserOnly | Choice::Signal => None,
    };
    let mut attempts = Vec::new();
    for &way in ways {
        let opened = match way {
            Way::Call => UserFault::open(&Source::Call, false, signal),
            Way::UserMode => UserFault::open(&Source::Call, true, signal),
            Way::Device => device().and_then(|device| {
                let source = Source::Device(device.as_fd());
                UserFault::open(&source, false, signal)
            }),
            Way::Passed => match &passed {
                Some(device) => UserFault::open(&Source::Device(device.as_fd()), false, signal),
                None => Err(NotOpened::System(Errno::BADF)),
            },
        };
        match opened {
            Ok(userfault) => return Ok((userfault, way)),
            Err(NotOpened::NoWriteProtection(features)) => {
                return Err(ProtectError::NoWriteProtection(features));
            }
            Err(NotOpened::System(errno)) => attempts.push(Attempt {
                way,
                errno: errno.raw_os_error(),
            }),
        }
    }
    Err(ProtectError::NoUserfault(attempts))
}

fn device() -> Result<File, NotOpened> {
    let mut options = File::options();
    let opened = options.read(true).write(true).open("/dev/userfaultfd");
    opened.map_err(|error| NotOpened::System(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
