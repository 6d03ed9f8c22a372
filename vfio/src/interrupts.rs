//! Interrupts: an eventfd for each MSI-X vector.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::space::lock;

/// The eventfds of a device's vectors. Made when they are first wanted, then they stay: whoever
/// polls them need not care how often interrupts are turned off and on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Eventfds {
    all: Arc<Mutex<Vec<Arc<OwnedFd>>>>,
}

/// The eventfd of one MSI-X vector: readable since the vector has fired, until the driver has
/// taken note. For a poll loop; reading it is the driver's business.
#[derive(Clone, Debug)]
pub struct Vector {
    eventfd: Arc<OwnedFd>,
}

impl AsFd for Vector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

impl Eventfds {
    /// The first `count`.
    pub(crate) fn first(&self, count: usize) -> Result<Vec<Arc<OwnedFd>>, Errno> {
        let mut all = lock(&self.all);
        while all.len() < count {
            let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
            all.push(Arc::new(rustix::event::eventfd(0, flags)?));
        }
        Ok(all.iter().take(count).cloned().collect())
    }

    pub(crate) fn vector(&self, vector: u16) -> Option<Vector> {
        let eventfd = lock(&self.all).get(usize::from(vector)).cloned()?;
        Some(Vector { eventfd })
    }

    /// Whether `vector` has fired since this was last asked.
    pub(crate) fn take(&self, vector: u16) -> bool {
        let Some(Vector { eventfd }) = self.vector(vector) else {
            return false;
        };
        let mut count = [0; 8];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&eventfd, &mut count));
        read.is_ok_and(|len| len == count.len())
    }

    /// Waits until one of the vectors has fired, at most `timeout`, whatever signals arrive
    /// meanwhile; says whether one has.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let all = lock(&self.all).clone();
        let mut files: Vec<PollFd<'_>> = all
            .iter()
            .map(|eventfd| PollFd::new(eventfd, PollFlags::IN))
            .collect();
        let start = Instant::now();
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            // Longer than can be said is longer than the world: without end.
            let left = Timespec::try_from(left).ok();
            match rustix::event::poll(&mut files, left.as_ref()) {
                Err(Errno::INTR) => {}
                fired => return fired.is_ok_and(|count| count > 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_taken_once_and_can_be_polled() {
        let eventfds = Eventfds::default();
        let fds = eventfds.first(3).unwrap();
        assert!(!eventfds.take(1));
        assert!(!eventfds.wait(Duration::ZERO));
        for _ in 0..2 {
            rustix::io::write(&fds[1], &1_u64.to_ne_bytes()).unwrap();
        }
        assert!(eventfds.wait(Duration::from_secs(60)));
        assert!(!eventfds.take(0));
        assert!(eventfds.take(1));
        assert!(!eventfds.take(1));
        assert!(!eventfds.take(3));
        assert!(eventfds.vector(3).is_none());
    }

    #[test]
    fn a_signal_does_not_end_the_wait() {
        let eventfds = Eventfds::default();
        let fds = eventfds.first(1).unwrap();
        // SAFETY: the handler does nothing.
        let before = unsafe { libc::signal(libc::SIGUSR1, nothing as *const () as usize) };
        assert_ne!(before, libc::SIG_ERR);
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: the thread itself.
                send.send(unsafe { libc::pthread_self() }).unwrap();
                assert!(eventfds.wait(Duration::MAX), "a signal is no interrupt");
            });
            let waiting = receive.recv().unwrap();
            for _ in 0..20 {
                // SAFETY: the thread waits until the vector fires, below.
                let sent = unsafe { libc::pthread_kill(waiting, libc::SIGUSR1) };
                assert_eq!(sent, 0);
                std::thread::sleep(Duration::from_millis(5));
            }
            rustix::io::write(&fds[0], &1_u64.to_ne_bytes()).unwrap();
        });
    }

    extern "C" fn nothing(_signal: libc::c_int) {}

    #[test]
    fn vectors_stay_the_same_when_there_are_more_of_them() {
        let eventfds = Eventfds::default();
        let before = eventfds.first(1).unwrap();
        let vector = eventfds.vector(0).unwrap();
        let after = eventfds.first(4).unwrap();
        assert!(Arc::ptr_eq(&before[0], &after[0]));
        rustix::io::write(&after[0], &1_u64.to_ne_bytes()).unwrap();
        let mut poll = [PollFd::new(&vector, PollFlags::IN)];
        assert_eq!(
            rustix::event::poll(&mut poll, Some(&Timespec::default())),
            Ok(1)
        );
    }
}
