//! The QEMU process.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::connection::Connection;
use crate::host::lock;

/// How often QEMU is told the time: its timers fire at most this late.
const TICK: Duration = Duration::from_millis(1);

/// A QEMU, and the thread that keeps it and tells it the time. Dropped, both end.
///
/// QEMU ends when the thread that started it does (`exit-with-parent`, on Linux a signal on the
/// death of the parent *thread*). So it is a thread of its own, which lives as long as this value
/// or the program.
pub(super) struct Process {
    child: Arc<Mutex<Child>>,
    /// Dropping it ends the thread.
    keeper: Option<(Sender<Connection>, JoinHandle<()>)>,
}

impl Process {
    /// Starts `command`. Its error output goes to the file `errors`.
    pub(super) fn start(mut command: Command, errors: &Path, clock: Clock) -> io::Result<Self> {
        let program = command.get_program().display().to_string();
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(errors)?);
        let (to_us, started) = channel();
        let (keeper, connections) = channel();
        let thread = std::thread::Builder::new()
            .name("qtest".into())
            .spawn(move || {
                let child = command.spawn().map(|child| Arc::new(Mutex::new(child)));
                // With it go the descriptors that only QEMU keeps.
                drop(command);
                let is_started = child.is_ok();
                // Who asked waits for it below.
                if to_us.send(child).is_ok() && is_started {
                    keep(&connections, clock);
                }
            })?;
        let child = started
            .recv()
            .map_err(|_| io::Error::other("the thread has ended"))?;
        let child = child.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot run {program}: {error}"))
        })?;
        Ok(Self {
            child,
            keeper: Some((keeper, thread)),
        })
    }

    /// Tells QEMU the time from now on.
    pub(super) fn tell_time(&self, connection: Connection) {
        if let Some((keeper, _)) = &self.keeper {
            // If the thread has ended, so has QEMU.
            let _ = keeper.send(connection);
        }
    }

    /// The number of the process.
    pub(super) fn id(&self) -> u32 {
        lock(&self.child).id()
    }

    /// Whether QEMU runs.
    pub(super) fn is_running(&self) -> bool {
        matches!(lock(&self.child).try_wait(), Ok(None))
    }

    /// Waits until QEMU has ended, for `limit` at most; whether it has.
    pub(super) fn ends_within(&self, limit: Duration) -> bool {
        let start = Instant::now();
        while self.is_running() {
            if start.elapsed() >= limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Ends QEMU at once, as a machine whose plug is pulled.
    pub(super) fn kill(&self) {
        let mut child = lock(&self.child);
        // It may have ended already, which is what is wanted.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Holds the thread, and tells QEMU the time once there is a connection: with `accel=qtest` its
/// clock stands still unless it is told. Ends when the sender has been dropped, as the process
/// is ended then.
fn keep(connections: &Receiver<Connection>, clock: Clock) {
    use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
    let Ok(connection) = connections.recv() else {
        return;
    };
    loop {
        match connections.recv_timeout(TICK) {
            Err(Timeout) => {}
            Err(Disconnected) => return,
            Ok(_) => continue,
        }
        let now = clock.now().as_nanos();
        if connection
            .command(format_args!("clock_set {now}"))
            .is_none()
        {
            // Only held from here on.
            while connections.recv().is_ok() {}
            return;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Some((keeper, thread)) = self.keeper.take() {
            drop(keeper);
            // It ends at its next tick; a panic in it has been reported.
            let _ = thread.join();
        }
    }
}

/// What QEMU said before it ended: the last line of `errors`.
pub(super) fn last_words(errors: &Path) -> io::Error {
    let text = std::fs::read(errors).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("no message");
    io::Error::new(
        ErrorKind::BrokenPipe,
        format!("QEMU has ended: {}", line.trim()),
    )
}
