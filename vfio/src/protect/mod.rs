//! Lending memory that the program may write again at any moment (Linux).
//!
//! A [`Protector`] has a userfaultfd and a thread. An [`Arena`] of it hands out [`Buffer`]s, which
//! the program writes as it likes. [`Buffer::lend`] protects pages and yields a [`Lent`]: its bytes
//! stay as they are until it is dropped, whoever writes meanwhile: the writer sleeps.
//!
//! ```no_run
//! use pagewire_vfio::protect::{Choice, Protector};
//!
//! let protector = Protector::open(Choice::Best)?;
//! let arena = protector.arena(1 << 20)?;
//! // … the arena is mapped for the device …
//! let mut buffer = arena.buffer(10_000)?;
//! buffer.bytes_mut(0..5)?.copy_from_slice(b"hello");
//! let lent = buffer.lend(0..5)?;
//! // … sent; meanwhile a writer would sleep …
//! drop(lent);
//! buffer.bytes_mut(0..5)?.copy_from_slice(b"world");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Whoever lends can be told that somebody waits ([`Arena::has_wanted`], [`Arena::wanted`]). It may
//! give its loan back early, if it puts the bytes elsewhere first: the policy *write-protect, copy*.
//! If it does not, that is *write-protect, wait*.
//!
//! # What it costs
//! Protection is lazy: a page stays protected after its release, so lending it again costs a count
//! and no system call. The first write after that clears it (a fault through the thread for a write
//! by pointer; a call for the whole range by [`Buffer::bytes_mut`], which never faults). What has to
//! be protected for a loan is protected in one call.
//!
//! # What is promised
//! - The bytes of a loan do not change before it is dropped, and their memory is not freed: also if
//!   the buffer, the arena and the protector are dropped, or any of them is forgotten. Then it
//!   leaks.
//! - A writer that sleeps goes on when the last loan of its page is gone, also if the thread that
//!   serves the faults has died: then whoever drops the loan wakes it, what is not lent is writable
//!   at once, and nothing more is lent ([`ProtectError::HandlerGone`]): copy.
//! - No more is protected than arenas have, and nothing when they are gone.
//!
//! # What is not
//! - Protection is of this mapping in this process. A child after `fork` has not got the memory; it
//!   must end or `exec` without dropping what is in here, for its copy of the descriptor belongs to
//!   this process. Another mapping of the same pages (there is none, unless one is made by
//!   `mremap`), `/proc/self/mem`, a debugger, a device or an io_uring that had the pages pinned for
//!   *writing* before they were lent: they write, and nobody stops them.
//! - Whoever unmaps, remaps or advises away (`MADV_DONTNEED`) memory that is not his takes it from
//!   the device too, which goes on reading the old pages.
//! - System calls that write (`read(2)`) to a lent page by pointer wait in [`Mode::Full`]; in
//!   [`Mode::UserOnly`] they fail with EFAULT. By [`Buffer::bytes_mut`] they work in both, as it
//!   waits first.
//! - The logger of the program must not write to lent pages by pointer, nor a signal handler that
//!   runs on any thread: the thread that serves the faults may log, and then waits for itself.
//! - Loans of several threads of the same bytes, by pointer, of bytes that are being written at that
//!   moment: each loan has what was written before its page was protected, and nothing else.
//!
//! # The thread that polls the NIC
//! It alone sees completions, so if it sleeps until a release it sleeps for ever. It holds a
//! [`PollingThread`], and then [`Buffer::bytes_mut`] is an error there as long as the bytes are lent,
//! as [`Buffer::try_bytes_mut`] is anywhere: poll, and try again. It must not write by pointer.
//!
//! # Sources
//! Linux `Documentation/admin-guide/mm/userfaultfd.rst`, `include/uapi/linux/userfaultfd.h`, and
//! what programs have shown.

mod book;
mod buffer;
mod error;
mod handler;
mod memory;
mod polling;
mod protector;
mod userfault;
mod watch;

pub use buffer::{Buffer, Lent};
pub use error::{Attempt, ProtectError, Way};
pub use memory::Arena;
pub use polling::PollingThread;
pub use protector::{Choice, Mode, ProtectCounters, Protector};

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod schedule_tests;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;
