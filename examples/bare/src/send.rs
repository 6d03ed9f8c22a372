//! The transfer: a line that says what comes, the file, and the receiver's answer.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::error::Error;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;

use pagewire_drivers::{AnyNic, AnyRx, AnyTx, Description};
use pagewire_hal::{
    DmaBuffer, Granule, Instant, LedgerCounters, Nic, Phase, PortPair, RegionId, RxQueue, TxPort,
};
use pagewire_tcp::{ConnectionId, ConnectionStats, Slice, Stack, StackConfig, State};

use crate::clock::Clock;
use crate::content::PAGE;
use crate::file::File;
use crate::platform::{Memory, Pc};

/// What QEMU's user-mode network gives the first guest.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// Frames that may be in the ring.
const FRAMES: usize = 256;
/// Received frames handled at a time.
const BUDGET: usize = 64;
/// Nothing of all this takes so long.
const LIMIT: Duration = Duration::from_secs(60);
/// How often the device is looked after.
const WATCH: Duration = Duration::from_millis(250);
/// The longest answer.
const ANSWER: usize = 200;

/// Whatever went wrong.
pub(crate) type Failure = Box<dyn Error>;

/// What was found out.
pub(crate) struct Report {
    pub(crate) nic: Description,
    pub(crate) max_fragments: u16,
    pub(crate) bytes: usize,
    pub(crate) stats: ConnectionStats,
    pub(crate) by_fragments: Vec<(usize, u64)>,
    pub(crate) pages: LedgerCounters,
    pub(crate) link: Duration,
    pub(crate) transfer: Duration,
    pub(crate) answer: String,
}

/// Everything that takes part.
pub(crate) struct Sender {
    clock: Clock,
    nic: AnyNic<Pc>,
    rx: AnyRx<Pc>,
    stack: Stack<AnyTx<Pc>, Memory>,
    scratch: Vec<u8>,
    watched: Instant,
}

impl Sender {
    /// A stack on the first queue pair of `nic`.
    pub(crate) fn new(clock: Clock, mut nic: AnyNic<Pc>) -> Result<Self, Failure> {
        let (tx, rx) = nic.take_queues(0).ok_or("the NIC has no queues")?;
        let page = Granule::from_bytes(PAGE).ok_or("a page is a power of two")?;
        // A time is not random, but nothing on this machine is, and nobody is on QEMU's own
        // network who would guess it.
        let mut secret = [0; 16];
        let (seed, _) = secret.split_at_mut(8);
        seed.copy_from_slice(&clock.now().as_nanos().to_le_bytes());
        let config = StackConfig {
            mac: nic.mac_address(),
            address: ADDRESS,
            secret,
            ..StackConfig::default()
        };
        let longest = nic.capabilities().max_receive_len() as usize;
        let layout = config.pool_layout(nic.capabilities(), FRAMES, page);
        let stack = Stack::new(TxPort::new(&mut nic, tx, &layout)?, config)?;
        Ok(Self {
            clock,
            nic,
            rx,
            stack,
            scratch: vec![0; longest.max(2048)],
            watched: Instant::ZERO,
        })
    }

    /// Sends `file`, whose digest is `digest`, to `remote`, waits for its answer, and stops the
    /// device.
    pub(crate) fn run(
        mut self,
        file: File,
        digest: &str,
        remote: SocketAddrV4,
    ) -> Result<Report, Failure> {
        self.wait_for_link()?;
        let begin = self.clock.now();
        let bytes = file.bytes().len();
        let regions = self.register(file, digest)?;
        let connection = self.stack.connect(begin, remote, None)?;
        let answer = self.transfer(connection, &regions)?;
        let end = self.clock.now();
        let report = self.report(connection)?;
        self.shut_down(connection, &regions)?;
        Ok(Report {
            bytes,
            link: begin.saturating_since(Instant::ZERO),
            transfer: end.saturating_since(begin),
            answer,
            ..report
        })
    }

    fn wait_for_link(&mut self) -> Result<(), Failure> {
        loop {
            let now = self.check_time()?;
            match self.nic.poll(now)? {
                Phase::Running(link) if link.up => return Ok(()),
                Phase::Running(_) => self.clock.wait(Duration::from_millis(1)),
                phase => return Err(format!("the NIC is {phase:?}").into()),
            }
        }
    }

    /// The time, if there is some left.
    fn check_time(&self) -> Result<Instant, Failure> {
        let now = self.clock.now();
        if now.saturating_since(Instant::ZERO) > LIMIT {
            return Err("it takes too long".into());
        }
        Ok(now)
    }

    /// Makes the two parts of the stream known: the line goes into memory of the NIC, the file
    /// stays where it is.
    fn register(&mut self, file: File, digest: &str) -> Result<Vec<Slice>, Failure> {
        let line = format!("pagewire {} {digest}\n", file.bytes().len());
        let mut buffer = DmaBuffer::new(self.nic.allocate(line.len(), 1)?);
        buffer.as_mut_slice().copy_from_slice(line.as_bytes());
        let whole = |region: RegionId, len: usize| Slice {
            region,
            start: 0,
            len,
        };
        let len = file.bytes().len();
        Ok(vec![
            whole(self.stack.register(Arc::new(buffer))?, line.len()),
            whole(self.stack.register(Arc::new(file))?, len),
        ])
    }

    /// Sends the slices, reads the answer, and waits until every page is back.
    fn transfer(&mut self, connection: ConnectionId, slices: &[Slice]) -> Result<String, Failure> {
        let total: usize = slices.iter().map(|slice| slice.len).sum();
        let mut waiting = slices.to_vec();
        let (mut accepted, mut delivered) = (0, 0);
        let mut answer = Vec::new();
        loop {
            let now = self.check_time()?;
            self.poll(now)?;
            if let Some(error) = self.stack.error(connection) {
                return Err(error.into());
            }
            if self.stack.is_established(connection) && accepted < total {
                let count = self.stack.send(connection, &waiting, 0)?;
                drop_front(&mut waiting, count);
                accepted += count;
                if accepted == total {
                    self.stack.close(now, connection);
                }
            }
            while let Some(completion) = self.stack.completion(now, connection) {
                delivered += completion.bytes;
            }
            let count = self.stack.receive(connection, &mut self.scratch)?;
            answer.extend_from_slice(self.scratch.get(..count).unwrap_or_default());
            let over = self.stack.state(connection) == Some(State::TimeWait);
            if over && delivered == total && self.stack.port().outstanding() == 0 {
                break;
            }
        }
        answer.truncate(ANSWER);
        let text = String::from_utf8_lossy(&answer);
        Ok(text.trim_end().into())
    }

    /// Lets device and stack work.
    fn poll(&mut self, now: Instant) -> Result<(), Failure> {
        let Self {
            rx, stack, scratch, ..
        } = self;
        rx.receive(BUDGET, &mut |frame| {
            stack.input(now, frame.copy_to(scratch), frame.checksum());
        })?;
        self.stack.poll(now)?;
        if now.saturating_since(self.watched) > WATCH {
            self.watched = now;
            match self.nic.poll(now)? {
                Phase::Running(_) => {}
                phase => return Err(format!("the NIC is {phase:?}").into()),
            }
        }
        Ok(())
    }

    /// What was counted, before anything is torn down: that would hide a page that did not come
    /// back by itself.
    fn report(&self, connection: ConnectionId) -> Result<Report, Failure> {
        let port = self.stack.port();
        let counts = port.counters().by_fragments.iter();
        let stats = self.stack.connection_stats(connection);
        Ok(Report {
            nic: self.nic.describe(),
            max_fragments: port.capabilities().max_fragments,
            bytes: 0,
            stats: stats.ok_or("the connection is gone")?.clone(),
            by_fragments: counts
                .copied()
                .enumerate()
                .filter(|(_, n)| *n > 0)
                .collect(),
            pages: port.ledger().counters(),
            link: Duration::ZERO,
            transfer: Duration::ZERO,
            answer: String::new(),
        })
    }

    /// Gives back the regions, stops the device and frees its memory.
    fn shut_down(&mut self, connection: ConnectionId, slices: &[Slice]) -> Result<(), Failure> {
        self.stack.remove(self.clock.now(), connection);
        for slice in slices {
            self.stack.release_region(slice.region)?;
        }
        for _ in slices {
            self.stack
                .take_released()
                .ok_or("a region did not come back")?;
        }
        let pair = PortPair {
            tx: self.stack.port_mut(),
            rx: &mut self.rx,
        };
        let clock = self.clock;
        pagewire_hal::shut_down(&mut self.nic, &mut [pair], || Some(clock.now()))?;
        Ok(())
    }
}

/// Takes the first `count` bytes off a list of slices.
fn drop_front(slices: &mut [Slice], mut count: usize) {
    for slice in slices {
        let part = slice.len.min(count);
        slice.start += part;
        slice.len -= part;
        count -= part;
    }
}
