//! What can go wrong, where, and how it is mended.

use std::fmt;

use rustix::io::Errno;

/// A way to a userfaultfd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// The system call, for user and kernel.
    Call,
    /// `/dev/userfaultfd`, for user and kernel.
    Device,
    /// A descriptor of `/dev/userfaultfd` that was passed in.
    Passed,
    /// The system call, for user mode only.
    UserMode,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Call => "userfaultfd(2)",
            Self::Device => "/dev/userfaultfd",
            Self::Passed => "the descriptor of /dev/userfaultfd that was passed in",
            Self::UserMode => "userfaultfd(2) for user mode only",
        })
    }
}

/// A way that was tried, and what the system said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// The way.
    pub way: Way,
    /// The error number.
    pub errno: i32,
}

/// Why pages were not protected, lent or written. The text of each says what, where, and how to
/// mend it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProtectError {
    /// No way leads to a userfaultfd.
    NoUserfault(Vec<Attempt>),
    /// The kernel's userfaultfd does not tell of writes to shared memory; these are its features.
    NoWriteProtection(u64),
    /// The thread that serves the faults has ended: what is lent stays as it is until it is
    /// released, and nothing more is lent.
    HandlerGone,
    /// The range is not inside the buffer or loan.
    OutOfRange,
    /// The range, or the memory, has no byte.
    Empty,
    /// The memory does not begin or end with a page.
    Unaligned {
        /// Bytes of a page.
        page: usize,
    },
    /// The bytes are lent, and waiting is not wanted or would never end.
    Lent,
    /// A page is lent that the program has another for, see
    /// [`PollingThread`](super::PollingThread): it can be lent anew when it is released. Copy.
    Away,
    /// As many bytes are lent as may be, see [`Protector::set_limit`](super::Protector::set_limit).
    OverLimit,
    /// The memory cannot be written by pointer from a [`PollingThread`](super::PollingThread).
    Polling,
    /// More loans of a page than can be counted (2^32 − 1).
    TooMany,
    /// The arena has no room for that many bytes in a row.
    NoRoom {
        /// Bytes that were asked for, in whole pages.
        wanted: u64,
        /// Bytes of the longest free range.
        longest: u64,
    },
    /// A system call failed.
    System {
        /// What was tried.
        doing: &'static str,
        /// The error number.
        errno: i32,
    },
}

impl ProtectError {
    /// A system call that failed while `doing` something.
    pub(crate) fn system(doing: &'static str, errno: Errno) -> Self {
        Self::System {
            doing,
            errno: errno.raw_os_error(),
        }
    }
}

impl fmt::Display for ProtectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUserfault(attempts) => no_userfault(f, attempts),
            Self::NoWriteProtection(features) => write!(
                f,
                "the kernel's userfaultfd cannot stop writes to shared memory (features \
                 {features:#x}): Linux 5.19 or later is needed, with CONFIG_PTE_MARKER_UFFD_WP, \
                 for x86 (64-bit ARM and RISC-V need a later one). Copy, or own the buffers, instead"
            ),
            Self::HandlerGone => write!(
                f,
                "the thread that serves writes to lent pages has ended, see the log: open another \
                 Protector, or copy"
            ),
            Self::OutOfRange => write!(f, "the range is not inside the buffer or loan"),
            Self::Empty => write!(f, "the range has no byte"),
            Self::Unaligned { page } => write!(
                f,
                "the memory does not begin and end with a page, whose length is {page}: map it anew"
            ),
            Self::Lent => write!(
                f,
                "the bytes are lent to the device: poll it until they are released, or write \
                 another buffer"
            ),
            Self::Away => write!(
                f,
                "what the program has written since the page was lent cannot be lent before that is \
                 released: copy it"
            ),
            Self::OverLimit => write!(
                f,
                "as many bytes are lent as may be: copy, release loans, or set a higher limit"
            ),
            Self::Polling => write!(
                f,
                "a thread that polls the NIC would wait for itself when it writes to these pages \
                 by pointer, as none can take their place (huge ones that were set aside, or those \
                 of a shared file): write from another thread, or take an arena of ordinary pages"
            ),
            Self::TooMany => write!(f, "too many loans of one page"),
            Self::NoRoom { wanted, longest } => write!(
                f,
                "the arena has no room for {wanted} bytes in a row: at most {longest} are free. \
                 Drop buffers, release loans, or make a larger arena"
            ),
            Self::System { doing, errno } => {
                write!(f, "{doing}: {}", Errno::from_raw_os_error(*errno))
            }
        }
    }
}

fn no_userfault(f: &mut fmt::Formatter<'_>, attempts: &[Attempt]) -> fmt::Result {
    write!(f, "pages cannot be protected while they are lent:")?;
    for (index, Attempt { way, errno }) in attempts.iter().enumerate() {
        let before = if index == 0 { "" } else { ";" };
        write!(f, "{before} {way}: {}", Errno::from_raw_os_error(*errno))?;
    }
    let said = |wanted: Errno| {
        attempts
            .iter()
            .any(|attempt| attempt.errno == wanted.raw_os_error())
    };
    if said(Errno::NOSYS) || said(Errno::NOENT) && !said(Errno::PERM) && !said(Errno::ACCESS) {
        write!(
            f,
            ". The kernel needs CONFIG_USERFAULTFD, and a sandbox (seccomp) has to let it through"
        )?;
    }
    if said(Errno::PERM) || said(Errno::ACCESS) {
        write!(
            f,
            ". To have the full one, give this user access to /dev/userfaultfd (`setfacl -m \
             u:$USER:rw /dev/userfaultfd`), or the program CAP_SYS_PTRACE, or set \
             vm.unprivileged_userfaultfd=1; or let user mode do, where writes by system calls to \
             lent pages fail with EFAULT"
        )?;
    }
    Ok(())
}

impl std::error::Error for ProtectError {}
