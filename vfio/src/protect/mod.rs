//! Lending memory that the program may write again at any moment (Linux).
//!
//! A [`Protector`] has a userfaultfd, and a thread or a handler of SIGBUS that serves it. An [`Arena`] of it hands out [`Buffer`]s, which
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
//! # With a NIC
//! An [`Arena`] is [`Lendable`](pagewire_hal::Lendable): a platform registers a clone of it, and a
//! [`Ledger`](pagewire_hal::Ledger) lends parts of that region and releases them, page by page. Offsets
//! are those of the arena, [`Buffer::arena_offset`]. A limit on what is lent is set by
//! [`Protector::set_limit`].
//!
//! # Memory that the caller brings
//! [`Protector::register`] takes a [`MappedMemory`] by value and watches it where it is: private pages,
//! those of a shared file, huge ones. [`Registered`] can be lent as an arena can.
//!
//! # Two addresses
//! Memory has an address where the program writes it, which is protected, and one where it is lent
//! from ([`Arena::base`], [`Lent::bytes`]), where nobody can write. Both show the same pages. When
//! somebody writes who must not sleep, the program gets another page with the same bytes in the place
//! of the lent one, at its own address; the other address, the device and whoever reads a loan have
//! the old one. When that is lent no more, the new bytes go there, and it returns. It is the same
//! page all the time for the device, so there is no call to VFIO.
//!
//! # What it costs
//! Protection is lazy: a page stays protected after its release, so lending it again costs a count
//! and no system call. The first write after that clears it (a fault through the thread for a write
//! by pointer; two calls for the whole range by [`Buffer::bytes_mut`]). Who writes page after page by
//! pointer has others cleared ahead of him, as many as he has written. What has to be protected for a
//! loan is protected in one call.
//!
//! Clearing by `UFFDIO_WRITEPROTECT` alone would leave a fault for the first write to each page, as
//! the memory is shared: from 16 KiB on pages are mapped anew instead, and so are huge ones
//! ([`Protector::huge_arena`]), which are whole again then. Of the policies with a rewrite between
//! sends those in huge pages are by far the cheapest. Memory that is registered instead, and pages
//! that are locked (`mlockall`), are not mapped anew.
//!
//! # What is promised
//! - The bytes of a loan do not change before it is dropped, and their memory is not freed: also if
//!   the buffer, the arena and the protector are dropped, or any of them is forgotten. Then it
//!   leaks.
//! - A writer that sleeps goes on when the last loan of its page is gone, also if the thread that
//!   serves the faults has died: then whoever drops the loan wakes it, what is not lent is writable
//!   at once, and nothing more is lent ([`ProtectError::HandlerGone`]): copy. (What was lent by a
//!   [`PollingThread`] is then written on other pages at once.)
//! - No more is protected than arenas have, and nothing when they are gone.
//!
//! # What is not
//! - Protection is of this mapping in this process. A child after `fork` has not got the memory; it
//!   must end or `exec` without dropping what is in here, for its copy of the descriptor belongs to
//!   this process. Another mapping of the same pages (there is none but ours, unless one is made by
//!   `mremap` or of `/proc/self/fd`), `/proc/self/mem`, a debugger, a device or an io_uring that had
//!   the pages pinned for *writing* before they were lent: they write, and nobody stops them.
//! - Whoever unmaps, remaps or advises away (`MADV_DONTNEED`) memory that is not his takes it from
//!   the device too, which goes on reading the old pages.
//! - System calls that write (`read(2)`) to a lent page by pointer wait in [`Mode::Full`]; in
//!   [`Mode::UserOnly`] and [`Mode::Signal`] they fail with EFAULT. By [`Buffer::bytes_mut`] they work in both, as it
//!   waits first; unless the bytes are lent, or return home, just then, by another thread.
//! - The logger of the program must not write to lent pages by pointer, nor a signal handler that
//!   runs on any thread: the thread that serves the faults may log, and then waits for itself.
//! - In [`Mode::Signal`] nobody writes to what is lent by pointer who has a lock that the memory
//!   allocator or the logger takes, for the handler runs there and then. A thread that blocks SIGBUS
//!   is ended by the kernel with the process when it writes to a protected page.
//! - Loans of several threads of the same bytes, by pointer, of bytes that are being written at that
//!   moment: each loan has what was written before its page was protected, and nothing else.
//!
//! # The thread that polls the NIC
//! It alone sees completions, so if it slept until a release it would sleep for ever. It holds a
//! [`PollingThread`], and then its writes to lent pages go on at once, on other pages, by pointer as by
//! [`Buffer::bytes_mut`]. (What an io_uring writes for it in a thread of the kernel waits as
//! ever.) Until such a page has returned, what it has now cannot be lent: [`ProtectError::Away`].
//! [`Arena::wanted`] tells of it, although nobody waits: the sooner it is released, the better.
//!
//! Huge pages that were set aside, and those of a shared file that the caller has brought, have no
//! others to take their place: there [`Buffer::as_ptr`] and, if it is lent, [`Buffer::bytes_mut`] are
//! errors on that thread. A pointer that it has from elsewhere it must not use.
//!
//! # Sources
//! Linux `Documentation/admin-guide/mm/userfaultfd.rst`, `include/uapi/linux/userfaultfd.h`, and
//! what programs have shown.

mod book;
mod brought;
mod buffer;
mod error;
mod handler;
mod lendable;
mod memory;
mod polling;
mod protector;
mod shared;
mod signal;
mod twin;
mod userfault;
mod watch;

pub use brought::{MappedMemory, MemoryKind, Registered};
pub use buffer::{Buffer, Lent};
pub use error::{Attempt, ProtectError, Way};
pub use memory::Arena;
pub use polling::PollingThread;
pub use protector::{Choice, Mode, ProtectCounters, Protector};

#[cfg(test)]
mod anew_tests;
#[cfg(test)]
mod away_tests;
#[cfg(test)]
mod brought_tests;
#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod hugetlb_tests;
#[cfg(test)]
mod ledger_tests;
#[cfg(test)]
mod schedule_tests;
#[cfg(test)]
mod signal_tests;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;
