//! How a program hears that a message is over.

use std::collections::VecDeque;
use std::fmt;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pagewire_tcp::{ConnectionId, Explanation, Outcome, SendError};
use rustix::event::EventfdFlags;

/// A message is over: none of its bytes is needed any more, by TCP or by the device.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Done {
    /// The connection.
    pub connection: ConnectionId,
    /// The message's tag.
    pub tag: u64,
    /// Its bytes.
    pub len: u64,
    /// Bytes of it that the peer is known to have. After an abort it may have more.
    pub delivered: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// Why the rest of it could not be sent, if that was the reason.
    pub error: Option<OutboxError>,
    /// Bytes in it of files that were read, and of memory that was copied, as they could not be mapped or
    /// lent. Texts are not counted.
    pub copied: u64,
    /// Calls of [`Stack::send`](pagewire_tcp::Stack::send) that it took.
    pub calls: u64,
    /// How long its bytes were held, added up over these calls, if its options asked for an account.
    pub held: Duration,
    /// Which way its bytes went, if its options asked for that; `held` is the longest of a call. What was
    /// copied by the outbox counts as lent in it, as it was lent from where it had been copied to.
    pub explanation: Option<Explanation>,
}

/// Why a message could not be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutboxError {
    /// The stack refuses it.
    Send(SendError),
    /// A file cannot be read.
    Read(ErrorKind),
}

impl fmt::Display for OutboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(error) => write!(f, "{error}"),
            Self::Read(kind) => write!(f, "a file cannot be read: {kind}"),
        }
    }
}

impl std::error::Error for OutboxError {}

impl From<SendError> for OutboxError {
    fn from(error: SendError) -> Self {
        Self::Send(error)
    }
}

/// Where a connection's [`Done`] goes.
#[derive(Default)]
pub enum Notice {
    /// To [`Outbox::done`](crate::Outbox::done), for the program to ask.
    #[default]
    Poll,
    /// To this function, called by the thread that polls the outbox.
    Call(Box<dyn FnMut(Done) + Send>),
    /// To a queue with a file descriptor.
    Queue(Completions),
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Poll => "Poll",
            Self::Call(_) => "Call",
            Self::Queue(_) => "Queue",
        })
    }
}

/// A queue of [`Done`] with a file descriptor (an eventfd) that is readable while something is in it:
/// for an event loop (`poll`, `epoll`, `io_uring`) of the program, in any thread. Clones are for one and the
/// same queue, and several connections may share it.
///
/// The descriptor is only to be waited for: [`take`](Self::take) reads it.
#[derive(Clone, Debug)]
pub struct Completions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<VecDeque<Done>>,
    event: OwnedFd,
}

impl Completions {
    /// An empty queue.
    ///
    /// # Errors
    /// No more file descriptors, or no memory.
    pub fn new() -> std::io::Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Shared {
            queue: Mutex::default(),
            event,
        })))
    }

    /// The oldest in it.
    pub fn take(&self) -> Option<Done> {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let done = queue.pop_front();
        // Under the lock: whoever adds one now makes it readable again after this.
        if done.is_some() && queue.is_empty() {
            let mut count = [0; 8];
            if let Err(error) = rustix::io::read(&self.0.event, &mut count) {
                log::debug!("an eventfd cannot be read: {error}");
            }
        }
        done
    }

    pub(crate) fn add(&self, done: Done) {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = queue.is_empty();
        queue.push_back(done);
        if was_empty && let Err(error) = rustix::io::write(&self.0.event, &1u64.to_ne_bytes()) {
            log::error!("an eventfd cannot be written: {error}");
        }
    }
}

impl AsFd for Completions {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
