//! The thread that serves writes to protected pages.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::ProtectError;
use super::shared::Shared;

/// The thread, which ends with this value.
#[derive(Debug)]
pub(crate) struct Handler {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Handler {
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Self, ProtectError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let stop = rustix::event::eventfd(0, flags)
            .map_err(|errno| ProtectError::system("cannot make an eventfd", errno))?;
        let stop = Arc::new(stop);
        let (shared, stopped) = (Arc::clone(shared), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("pagewire-protect".into())
            .spawn(move || {
                let farewell = Farewell(&shared);
                match serve(farewell.0, &stopped) {
                    Ok(()) => {}
                    Err(errno) => log::error!("cannot wait for writes to lent pages: {errno}"),
                }
            })
            .map_err(|error| {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
                ProtectError::system("cannot start a thread", errno)
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Tells the thread to look up.
    pub(crate) fn rouse(&self) {
        if let Err(errno) = rustix::io::write(&self.stop, &1_u64.to_ne_bytes()) {
            log::error!("cannot stop the thread that serves writes: {errno}");
        }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.rouse();
        if let Some(thread) = self.thread.take() {
            // A panic has been reported, and its writers are free.
            let _ = thread.join();
        }
    }
}

/// Frees the writers when the thread ends, however it does.
struct Farewell<'a>(&'a Shared);

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        self.0.bury();
    }
}

fn serve(shared: &Shared, stop: &OwnedFd) -> Result<(), Errno> {
    loop {
        let mut files = [
            PollFd::new(&shared.userfault, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut files, None) {
            Err(Errno::INTR) => continue,
            polled => polled?,
        };
        if !files[1].revents().is_empty() {
            #[cfg(test)]
            if shared.doomed.load(std::sync::atomic::Ordering::SeqCst) {
                std::panic::resume_unwind(Box::new("a test wants it so"));
            }
            return Ok(());
        }
        if files[0]
            .revents()
            .intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)
        {
            return Err(Errno::BADF);
        }
        for stopped in shared.userfault.faults()? {
            shared.serve(stopped);
        }
    }
}
