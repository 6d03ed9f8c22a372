//! The thread that answers the client and lets the device work.

use std::fmt;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use pagewire_vfio_user::{BindError, Errno, Listener, Session, SessionError};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use super::function::Function;
use crate::Device;
use crate::host::{Counters, lock};

/// The pause after something has happened, and how long it gets, twice as long each time, while
/// nothing does.
const SHORTEST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);
/// Steps of the device before the client is listened to again.
const STEPS: usize = 4;
/// Violations that a running server keeps for its owner.
const MOST_KEPT: usize = 256;

/// Why a device cannot be served.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// There is no socket.
    Bind(BindError),
    /// A system call failed.
    System {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        errno: Errno,
    },
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::System { doing, errno } => write!(f, "{doing}: {errno}"),
        }
    }
}

impl std::error::Error for ServeError {}

/// What happens at a server.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A client has come.
    Connected,
    /// It has gone, or was hung up on for the reason given.
    Disconnected(SessionError),
    /// Another one was turned away meanwhile.
    Refused,
    /// The driver has done what it must not.
    Violation(String),
}

/// A device and the socket at which it is served.
pub struct Server<D: Device> {
    listener: Listener,
    function: Arc<Mutex<Function<D>>>,
    /// Readable when there may be something for the device to do.
    wake: Vec<OwnedFd>,
    /// The device did not take what it was woken for: it is not woken again until it has done
    /// something else.
    is_deaf: bool,
    session: Option<Session>,
}

impl<D: Device> Server<D> {
    /// Makes the socket at `path` for `device`. While one of `wake` is readable (the descriptor of
    /// the wire, say) the device is looked after at once; without, an arriving frame waits 10 ms
    /// at worst.
    ///
    /// # Errors
    /// [`ServeError::Bind`]: another server listens there, say. A socket that a killed server has
    /// left is replaced.
    pub fn bind(path: &Path, device: D, wake: Vec<OwnedFd>) -> Result<Self, ServeError> {
        Ok(Self {
            listener: Listener::bind(path).map_err(ServeError::Bind)?,
            function: Arc::new(Mutex::new(Function::new(device))),
            wake,
            is_deaf: false,
            session: None,
        })
    }

    /// Serves one client after the other until `stop` is readable or `watch` breaks off. The file
    /// of the socket goes away with the server.
    ///
    /// # Errors
    /// [`ServeError::System`]; never what a client does.
    pub fn run(
        &mut self,
        stop: BorrowedFd<'_>,
        watch: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<(), ServeError> {
        let mut pause = SHORTEST_PAUSE;
        let mut is_busy = false;
        loop {
            let ready = self.wait(stop, is_busy, pause)?;
            if ready.stop || self.welcome(ready.listener, watch)?.is_break() {
                return Ok(());
            }
            let heard = match self.listen(ready.session, watch) {
                ControlFlow::Break(()) => return Ok(()),
                ControlFlow::Continue(heard) => heard,
            };
            let worked = self.work(heard, watch);
            let ControlFlow::Continue(worked) = worked else {
                return Ok(());
            };
            is_busy = heard || worked;
            self.is_deaf = !is_busy && (self.is_deaf || ready.wake);
            pause = if is_busy {
                SHORTEST_PAUSE
            } else {
                LONGEST_PAUSE.min(pause * 2)
            };
        }
    }

    /// Sleeps until there is something to do.
    fn wait(
        &self,
        stop: BorrowedFd<'_>,
        is_busy: bool,
        pause: Duration,
    ) -> Result<Ready, ServeError> {
        let mut files = vec![
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        let timeout = self.session.as_ref().map(|session| {
            let mut wanted = PollFlags::IN;
            wanted.set(PollFlags::OUT, session.wants_to_write());
            files.push(PollFd::new(session, wanted));
            if !self.is_deaf {
                let wake = self.wake.iter();
                files.extend(wake.map(|file| PollFd::new(file, PollFlags::IN)));
            }
            if is_busy { Duration::ZERO } else { pause }
        });
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match rustix::event::poll(&mut files, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                let doing = "cannot wait for the client";
                return Err(ServeError::System { doing, errno });
            }
        }
        let is_ready = |index: usize| files.get(index).is_some_and(|f| !f.revents().is_empty());
        Ok(Ready {
            stop: is_ready(0),
            listener: is_ready(1),
            session: is_ready(2),
            wake: (3..files.len()).any(is_ready),
        })
    }

    /// Takes a client, or turns it away.
    fn welcome(
        &mut self,
        someone_is_there: bool,
        watch: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ServeError> {
        if !someone_is_there {
            return Ok(ControlFlow::Continue(()));
        }
        let system = |errno| ServeError::System {
            doing: "cannot take a client",
            errno,
        };
        if self.session.is_some() {
            let refused = self.listener.refuse().map_err(system)?;
            return Ok(tell(refused, Event::Refused, watch));
        }
        self.session = self.listener.accept().map_err(system)?;
        Ok(tell(self.session.is_some(), Event::Connected, watch))
    }

    /// Does what the client says; whether it said anything.
    fn listen(
        &mut self,
        is_ready: bool,
        watch: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<(), bool> {
        let Some(session) = self.session.as_mut().filter(|_| is_ready) else {
            return ControlFlow::Continue(false);
        };
        let mut function = lock(&self.function);
        match session.handle(&mut *function) {
            Ok(heard) => ControlFlow::Continue(heard),
            Err(error) => {
                log::info!("{error}");
                function.forget_client();
                self.session = None;
                watch(Event::Disconnected(error))?;
                ControlFlow::Continue(true)
            }
        }
    }

    /// Lets the device work, if there is a client; whether it did anything.
    fn work(
        &mut self,
        heard: bool,
        watch: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<(), bool> {
        let mut worked = false;
        let mut function = lock(&self.function);
        if self.session.is_some() {
            for _ in 0..STEPS {
                if !function.step() {
                    break;
                }
                worked = true;
            }
        }
        if heard || worked {
            for violation in function.take_violations() {
                watch(Event::Violation(violation))?;
            }
        }
        ControlFlow::Continue(worked)
    }

    /// What the device has read and written in the memory of its clients.
    #[must_use]
    pub fn counters(&self) -> Counters {
        lock(&self.function).counters()
    }

    /// Calls `f` with the device.
    pub fn with_device<R>(&self, f: impl FnOnce(&mut D) -> R) -> R {
        f(&mut lock(&self.function).device)
    }
}

impl<D: Device + 'static> Server<D> {
    /// Serves in a thread of its own, until the value is dropped.
    ///
    /// # Errors
    /// [`ServeError::System`] if there can be no thread.
    pub fn spawn(mut self) -> Result<Running<D>, ServeError> {
        let system = |doing| move |errno| ServeError::System { doing, errno };
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let stop = rustix::event::eventfd(0, flags).map_err(system("cannot make an eventfd"))?;
        let stop = Arc::new(stop);
        let function = Arc::clone(&self.function);
        let violations = Arc::new(Mutex::new(Vec::new()));
        let (theirs, kept) = (Arc::clone(&stop), Arc::clone(&violations));
        let thread = std::thread::Builder::new().name("vfio-user".into());
        let thread = thread.spawn(move || {
            let served = self.run(theirs.as_fd(), &mut |event| {
                log::debug!("{event:?}");
                let mut kept = lock(&kept);
                if let Event::Violation(text) = event
                    && kept.len() < MOST_KEPT
                {
                    kept.push(text);
                }
                ControlFlow::Continue(())
            });
            if let Err(error) = served {
                log::error!("{error}");
            }
        });
        let thread = thread.map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
            system("cannot start a thread")(errno)
        })?;
        Ok(Running {
            function,
            violations,
            stop,
            thread: Some(thread),
        })
    }
}

/// Tells of `event` if it has happened.
fn tell(
    happened: bool,
    event: Event,
    watch: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> ControlFlow<()> {
    if happened {
        watch(event)
    } else {
        ControlFlow::Continue(())
    }
}

/// Whom to look after.
struct Ready {
    stop: bool,
    listener: bool,
    session: bool,
    wake: bool,
}

impl<D: Device> fmt::Debug for Server<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// A server in a thread of its own. Dropped, it hangs up and removes its socket.
pub struct Running<D: Device> {
    function: Arc<Mutex<Function<D>>>,
    violations: Arc<Mutex<Vec<String>>>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl<D: Device> Running<D> {
    /// What drivers did that they must not, since this was last asked.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        // The thread holds the function while it moves them from there to the others.
        let mut function = lock(&self.function);
        let mut all = std::mem::take(&mut *lock(&self.violations));
        all.append(&mut function.take_violations());
        all
    }

    /// What the device has read and written in the memory of its clients.
    #[must_use]
    pub fn counters(&self) -> Counters {
        lock(&self.function).counters()
    }

    /// Calls `f` with the device, which does nothing meanwhile.
    pub fn with_device<R>(&self, f: impl FnOnce(&mut D) -> R) -> R {
        f(&mut lock(&self.function).device)
    }
}

impl<D: Device> Drop for Running<D> {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread of a vfio-user server has panicked");
        }
    }
}

impl<D: Device> fmt::Debug for Running<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}
