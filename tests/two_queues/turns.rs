//! Two threads that take turns: while one works the other sleeps in a system call, and is seen to.
//!
//! Anything else (a barrier, a channel) would let the one that goes to sleep run for a moment
//! beside the one that wakes, and the trace does not say which thread an access is of.

use std::fs;
use std::io::{Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

/// One thread's side.
pub(crate) struct Turns<'t> {
    /// Which thread this is, 0 or 1.
    thread: usize,
    wake: std::io::PipeReader,
    other: std::io::PipeWriter,
    /// The descriptor that the other one sleeps on.
    other_sleeps_on: i32,
    ids: &'t [AtomicI32; 2],
}

/// Both sides. `ids` are 0 before.
pub(crate) fn pair(ids: &[AtomicI32; 2]) -> [Turns<'_>; 2] {
    let (first_reads, first_is_woken) = pipe().unwrap();
    let (second_reads, second_is_woken) = pipe().unwrap();
    let fds = [first_reads.as_raw_fd(), second_reads.as_raw_fd()];
    let side = |thread: usize, wake, other| Turns {
        thread,
        wake,
        other,
        other_sleeps_on: fds[1 - thread],
        ids,
    };
    [
        side(0, first_reads, second_is_woken),
        side(1, second_reads, first_is_woken),
    ]
}

impl Turns<'_> {
    /// To be called once by each thread: thread 0 returns when the other sleeps, thread 1 when it
    /// is its turn.
    pub(crate) fn begin(&mut self) {
        let id = rustix::thread::gettid().as_raw_nonzero().get();
        self.ids[self.thread].store(id, Ordering::SeqCst);
        if self.thread == 0 {
            self.wait_until_other_sleeps();
        } else {
            self.sleep();
        }
    }

    /// The other one's turn; returns when it is this one's again, and the other sleeps.
    pub(crate) fn pass(&mut self) {
        self.give();
        self.sleep();
    }

    /// The other one's turn; this one has done its work. Thread 0 waits for thread 1, so that their
    /// stacks are there at the same time until the end.
    pub(crate) fn finish(&mut self) {
        self.give();
        if self.thread == 0 {
            self.wake.read_exact(&mut [0]).unwrap();
        }
    }

    fn give(&mut self) {
        self.other.write_all(&[0]).unwrap();
    }

    fn sleep(&mut self) {
        self.wake.read_exact(&mut [0]).unwrap();
        self.wait_until_other_sleeps();
    }

    /// Until the kernel says that the other thread is in read(2), which is system call 0 here, on
    /// its pipe.
    fn wait_until_other_sleeps(&self) {
        let asleep = format!("0 {:#x} ", self.other_sleeps_on);
        loop {
            let id = self.ids[1 - self.thread].load(Ordering::SeqCst);
            let path = format!("/proc/self/task/{id}/syscall");
            match fs::read_to_string(path) {
                Ok(call) if call.starts_with(&asleep) => return,
                Err(error) if id != 0 => panic!("the other thread has gone: {error}"),
                _ => thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}
