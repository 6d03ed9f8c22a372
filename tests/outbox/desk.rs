//! A machine with an outbox.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pagewire::hal::Region;
use pagewire::tcp::ConnectionId;
use pagewire_models::{Host, HostMemory};
use pagewire_outbox::{BUFFER, Done, Limits, MapFile, NotMapped, Outbox};
use pagewire_vfio::LiveFile;

use super::machine::{Machine, PAGE, Setup};

/// Maps files for the model, unless it is told to refuse.
struct Mapper {
    host: Host,
    refuses: Arc<Refuses>,
}

/// What is refused.
#[derive(Default)]
pub(crate) struct Refuses {
    pub(crate) as_full: AtomicBool,
    pub(crate) for_ever: AtomicBool,
}

impl MapFile for Mapper {
    fn map(&self, file: LiveFile) -> Result<Arc<dyn Region>, NotMapped> {
        if self.refuses.as_full.load(Ordering::Relaxed) {
            return Err(NotMapped::Full("the test says so".into()));
        }
        if self.refuses.for_ever.load(Ordering::Relaxed) {
            return Err(NotMapped::Failed("the test says so".into()));
        }
        let region = self.host.register(file);
        let region = region.map_err(|error| NotMapped::Failed(error.to_string()))?;
        Ok(region)
    }
}

pub(crate) struct Desk {
    pub(crate) machine: Machine,
    pub(crate) outbox: Outbox<HostMemory>,
    pub(crate) refuses: Arc<Refuses>,
    buffers: usize,
}

impl Desk {
    pub(crate) fn new(setup: &Setup, limits: Limits) -> Self {
        let machine = Machine::new(setup);
        let refuses = Arc::new(Refuses::default());
        let mapper = Mapper {
            host: machine.host.clone(),
            refuses: Arc::clone(&refuses),
        };
        let mut outbox = Outbox::new(mapper, limits);
        let buffers = 2 * limits.connections;
        for _ in 0..buffers {
            outbox.add_buffer(machine.host.allocate(BUFFER, PAGE).unwrap());
        }
        Self {
            machine,
            outbox,
            refuses,
            buffers,
        }
    }

    pub(crate) fn id(&self, connection: usize) -> ConnectionId {
        self.machine.connections[connection]
    }

    pub(crate) fn round(&mut self) {
        let now = self.machine.host.now();
        self.outbox.poll(&mut self.machine.stack, now);
        self.machine.round();
        self.outbox.poll(&mut self.machine.stack, now);
    }

    pub(crate) fn run_until<T>(
        &mut self,
        what: &str,
        mut done: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        for _ in 0..400_000 {
            if let Some(result) = done(self) {
                return result;
            }
            self.round();
        }
        panic!("seed {}: never {what}", self.machine.seed);
    }

    /// Waits for the end of the next message of a connection.
    pub(crate) fn done(&mut self, connection: usize) -> Done {
        let id = self.id(connection);
        self.run_until("done", |desk| desk.outbox.done(id))
    }

    /// Nothing is lent, mapped, or kept.
    pub(crate) fn assert_all_back(&mut self) {
        self.machine.assert_all_back();
        let now = self.machine.host.now();
        self.outbox.poll(&mut self.machine.stack, now);
        assert_eq!(self.outbox.counters().mapped, 0);
        assert_eq!(self.outbox.free_buffers(), self.buffers);
    }
}

/// A file with bytes of its own.
pub(crate) fn file(len: usize, seed: u64) -> (File, Vec<u8>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let content: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    (file, content)
}
