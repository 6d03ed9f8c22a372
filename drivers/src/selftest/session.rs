//! A device that is open for the time of a test: opened, used, stopped.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use pagewire_hal::{
    Capabilities, Causes, DmaBuffer, Granule, Instant, Loan, MacAddress, Nic, NicError, Phase,
    PoolLayout, PortPair, QueueError, Region, RegionId, RxChecksum, RxQueue, TxPort, restart,
    shut_down,
};

use super::outcome::{Stop, fault, not_run};
use super::probe::{Probe, ProbeMemory, Watch};
use super::station::Station;
use super::traffic::is_ours;
use crate::{AnyNic, AnyRx, AnyTx, Config};

/// The unit in which memory of the tests is laid out: no fragment reaches across a multiple of it,
/// as some machines lose such (QEMU's models of Intel's NICs behind an IOMMU do).
pub(super) const PAGE: usize = 4096;
/// Bytes of payload to send from.
pub(super) const PAYLOAD: usize = 32 * PAGE;
/// Bytes for the headers of a frame, or for a frame that is one fragment.
const HEADER_ROOM: usize = 192;
/// Headers at once.
const HEADERS: usize = 128;
/// How long a link may take: a second and a half is usual for 1000BASE-T.
const LINK_LIMIT: Duration = Duration::from_secs(10);
/// How long a device may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Frames that are kept at most for somebody who looks for them.
const MOST_ARRIVALS: usize = 4096;

/// Which way frames come to be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Route {
    /// They go to the peer.
    Peer,
    /// They come back through the MAC.
    Loopback,
    /// Nobody looks.
    Nowhere,
}

/// How a test wants the device.
pub(super) struct Setup {
    pub(super) config: Config,
    pub(super) route: Route,
    pub(super) interrupts: bool,
}

/// A frame that the device has received.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Vec<u8>,
    pub(super) checksum: RxChecksum,
}

type Memory<S> = ProbeMemory<<S as Station>::Memory>;
type Any<S> = AnyNic<Probe<<S as Station>::Platform>>;

/// A pair of queues, and a payload to send from.
pub(super) struct Pair<S: Station> {
    pub(super) port: TxPort<AnyTx<Probe<S::Platform>>, Memory<S>>,
    pub(super) rx: AnyRx<Probe<S::Platform>>,
    pub(super) loan: Option<Loan>,
    region: RegionId,
}

/// A device that is open.
pub(super) struct Session<'s, S: Station> {
    pub(super) station: &'s mut S,
    pub(super) nic: Any<S>,
    pub(super) pairs: Vec<Pair<S>>,
    pub(super) watch: Watch,
    pub(super) route: Route,
    /// Vectors, if interrupts are on.
    pub(super) vectors: u16,
    /// What has arrived at the far end, or has come back.
    pub(super) arrived: Vec<Vec<u8>>,
    /// What the device has received from the peer.
    pub(super) received: Vec<Received>,
    /// Causes that the driver has reported.
    pub(super) causes: Causes,
    /// Counts the frames of this session.
    pub(super) sequence: u32,
    pub(super) payload: Arc<[u8]>,
    frame: Vec<u8>,
}

/// Opens the device as `setup` says, lets `work` use it, and stops it. What `work` says counts
/// first, then whether the device could be stopped.
pub(super) fn with<S: Station, T>(
    station: &mut S,
    setup: &Setup,
    work: impl FnOnce(&mut Session<'_, S>) -> Result<T, Stop>,
) -> Result<T, Stop> {
    with_watch(station, setup, |_, _| Ok(()), work)
}

/// The same; `before` is told of the platform's watch when the device is open for the platform, and
/// the driver has not begun.
pub(super) fn with_watch<S: Station, T>(
    station: &mut S,
    setup: &Setup,
    before: impl FnOnce(&mut S, &Watch) -> Result<(), Stop>,
    work: impl FnOnce(&mut Session<'_, S>) -> Result<T, Stop>,
) -> Result<T, Stop> {
    let platform = Probe::new(station.open().map_err(Stop::Closed)?);
    let watch = platform.watch();
    before(station, &watch)?;
    let nic = AnyNic::open(platform, &setup.config)
        .map_err(|error| Stop::Closed(format!("the driver says: {error}")))?;
    let mut session = Session {
        station,
        nic,
        pairs: Vec::new(),
        watch,
        route: setup.route,
        vectors: 0,
        arrived: Vec::new(),
        received: Vec::new(),
        causes: Causes::empty(),
        sequence: 0,
        payload: pattern().into(),
        frame: Vec::new(),
    };
    let result = session.prepare(setup).and_then(|()| work(&mut session));
    let stopped = session.stop();
    result.and_then(|value| stopped.map(|()| value))
}

/// Bytes that differ from place to place.
fn pattern() -> Vec<u8> {
    let mix = |index: usize| {
        let index = index as u32;
        (index.wrapping_mul(0x9E37_79B1) >> 24) as u8 ^ index as u8
    };
    (0..PAYLOAD).map(mix).collect()
}

impl<S: Station> Session<'_, S> {
    fn prepare(&mut self, setup: &Setup) -> Result<(), Stop> {
        if setup.interrupts {
            self.vectors = match self.nic.enable_interrupts() {
                Ok(vectors) => vectors,
                Err(NicError::NotOffered { what }) => {
                    return not_run(format!("the device has no {what}"));
                }
                Err(error) => return fault_of(&error, "switching interrupts on"),
            };
        }
        for index in 0..self.nic.capabilities().queue_pairs {
            let pair = self.make_pair(index)?;
            self.pairs.push(pair);
        }
        match self.route {
            Route::Loopback => self.set_loopback(true),
            Route::Peer => self.await_link(),
            Route::Nowhere => Ok(()),
        }
    }

    fn make_pair(&mut self, index: u16) -> Result<Pair<S>, Stop> {
        const PLACE: &str = "making the queues";
        let Some((tx, rx)) = self.nic.take_queues(index) else {
            let what = format!("the driver has no queue pair {index}");
            return fault(what, PLACE, "this is a fault of the driver: report it");
        };
        let layout = PoolLayout {
            small_len: HEADER_ROOM,
            small_count: HEADERS,
            large_len: 0,
            large_count: 0,
            page: Granule::from_bytes(PAGE).unwrap_or(Granule::CONTIGUOUS),
        };
        let port = TxPort::new(&mut self.nic, tx, &layout);
        let mut port = port.or_else(|error| fault_of(&error, PLACE))?;
        let (region, loan) = self.lend(&mut port, None)?;
        Ok(Pair {
            port,
            rx,
            loan: Some(loan),
            region,
        })
    }

    /// Memory of the length of the payload with `content`, or the pattern of all payload, lent.
    fn lend(
        &mut self,
        port: &mut TxPort<AnyTx<Probe<S::Platform>>, Memory<S>>,
        content: Option<u8>,
    ) -> Result<(RegionId, Loan), Stop> {
        const PLACE: &str = "allocating memory to send from";
        let memory = self.nic.allocate(PAYLOAD, PAGE);
        let mut buffer = DmaBuffer::new(memory.or_else(|error| fault_of(&error, PLACE))?);
        match content {
            Some(byte) => buffer.as_mut_slice().fill(byte),
            None => {
                let bytes = buffer.as_mut_slice().iter_mut();
                bytes
                    .zip(self.payload.iter())
                    .for_each(|(to, from)| *to = *from);
            }
        }
        let len = buffer.as_slice().len();
        let ledger = port.ledger_mut();
        let region = ledger.register(Arc::new(buffer) as Arc<dyn Region>);
        let lent = region.and_then(|region| Ok((region, ledger.lend(region, 0, len)?)));
        lent.or_else(|error| {
            fault(
                format!("{error}"),
                PLACE,
                "report it: a fault of the software",
            )
        })
    }

    /// From now on the first pair sends from memory that is allocated now.
    pub(super) fn lend_anew(&mut self, content: u8) -> Result<(), Stop> {
        let Some(mut pair) = self.pairs.pop() else {
            return Ok(());
        };
        let lent = self.lend(&mut pair.port, Some(content));
        if let Ok((region, loan)) = lent {
            if let Some(old) = pair.loan.replace(loan) {
                pair.port.ledger_mut().give_back(old);
            }
            pair.region = region;
            self.pairs.push(pair);
            return Ok(());
        }
        self.pairs.push(pair);
        lent.map(|_| ())
    }

    /// What the device can do.
    pub(super) fn capabilities(&self) -> Capabilities {
        *self.nic.capabilities()
    }

    /// Where frames of the device go to: the peer, or itself.
    pub(super) fn far_address(&mut self) -> MacAddress {
        let own = self.nic.mac_address();
        match (self.route, self.station.peer()) {
            (Route::Peer, Some(peer)) => peer.mac_address(),
            _ => own,
        }
    }

    pub(super) fn set_loopback(&mut self, on: bool) -> Result<(), Stop> {
        match self.nic.set_loopback(on) {
            Ok(()) => Ok(()),
            Err(error) => not_run(format!("{error}")),
        }
    }

    /// Waits for the link.
    pub(super) fn await_link(&mut self) -> Result<(), Stop> {
        let up = self.until(LINK_LIMIT, |session| session.nic.link().up.then_some(()));
        match up? {
            Some(()) => Ok(()),
            None => not_run("there is no link (the test link says more)"),
        }
    }

    /// Lets time pass, takes what has completed and arrived.
    pub(super) fn pump(&mut self, wait: Duration) -> Result<(), Stop> {
        self.station.wait(wait);
        let loops = self.route == Route::Loopback;
        let Self {
            pairs,
            arrived,
            received,
            ..
        } = self;
        for (index, pair) in pairs.iter_mut().enumerate() {
            if let Err(error) = pair.port.reclaim(&mut |_| {}) {
                return queue_fault(&error, &format!("transmit queue {index}"));
            }
            let mut got = Vec::new();
            let result = pair.rx.receive(64, &mut |frame| {
                let mut bytes = alloc::vec![0; frame.len()];
                frame.copy_to(&mut bytes);
                got.push(Received {
                    bytes,
                    checksum: frame.checksum(),
                });
            });
            got.retain(|frame: &Received| is_ours(&frame.bytes));
            for frame in got {
                if loops && arrived.len() < MOST_ARRIVALS {
                    arrived.push(frame.bytes.clone());
                }
                if received.len() < MOST_ARRIVALS {
                    received.push(frame);
                }
            }
            if let Err(error) = result {
                return queue_fault(&error, &format!("receive queue {index}"));
            }
        }
        self.listen()?;
        if self.vectors > 0 {
            self.causes |= self.nic.take_interrupts();
        }
        Ok(())
    }

    /// Takes what has arrived at the peer.
    fn listen(&mut self) -> Result<(), Stop> {
        if self.route != Route::Peer {
            return Ok(());
        }
        let Some(peer) = self.station.peer() else {
            return Ok(());
        };
        for _ in 0..MOST_ARRIVALS.saturating_sub(self.arrived.len()) {
            match peer.receive(&mut self.frame) {
                Ok(true) if is_ours(&self.frame) => {
                    self.arrived.push(core::mem::take(&mut self.frame));
                }
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return peer_fault(&error),
            }
        }
        Ok(())
    }

    /// Pumps until `found` finds something, for `limit` at most.
    pub(super) fn until<T>(
        &mut self,
        limit: Duration,
        mut found: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<Option<T>, Stop> {
        let end = self.station.now() + limit;
        let mut wait = Duration::from_micros(10);
        loop {
            self.pump(wait)?;
            if let Some(value) = found(self) {
                return Ok(Some(value));
            }
            if self.station.now() >= end || self.station.is_cancelled() {
                return Ok(None);
            }
            wait = (wait * 2).min(Duration::from_millis(1));
        }
    }

    /// Begins a reset and follows it until the device is quiet, then starts it again.
    pub(super) fn reset(&mut self) -> Result<(), Stop> {
        const PLACE: &str = "a reset";
        let advice = "the device keeps the memory that it was lent: bind it anew, or reboot";
        let now = self.station.now();
        self.nic.begin_reset(now);
        let end = now + STOP_LIMIT;
        loop {
            self.station.wait(Duration::from_micros(100));
            let now = self.station.now();
            match self.nic.poll(now) {
                Ok(Phase::Quiet) => break,
                Ok(Phase::Failed) => return fault("the device does not stop", PLACE, advice),
                Ok(_) if now < end => {}
                Ok(phase) => {
                    let what = format!("a reset does not end ({phase:?} after {STOP_LIMIT:?})");
                    return fault(what, PLACE, advice);
                }
                Err(error) => return fault(format!("{error}"), PLACE, advice),
            }
        }
        let mut lent: Vec<_> = self.pairs.iter_mut().map(lent).collect();
        if let Err(error) = restart(&mut self.nic, &mut lent) {
            let what = format!("the device does not start again: {error}");
            return fault(what, PLACE, "open it anew; if that works, report it");
        }
        match self.route {
            Route::Loopback => self.set_loopback(true),
            Route::Peer => self.await_link(),
            Route::Nowhere => Ok(()),
        }
    }

    /// Stops the device for good.
    fn stop(&mut self) -> Result<(), Stop> {
        let Self {
            station,
            nic,
            pairs,
            ..
        } = self;
        let end = station.now() + STOP_LIMIT;
        let mut lent: Vec<_> = pairs.iter_mut().map(lent).collect();
        let stopped = shut_down(nic, &mut lent, || {
            station.wait(Duration::from_micros(100));
            Some(station.now()).filter(|now| *now < end)
        });
        for pair in pairs {
            if let Some(loan) = pair.loan.take() {
                pair.port.ledger_mut().give_back(loan);
            }
            // The region goes with the port; there is nothing to be said of an error.
            let _released = pair.port.ledger_mut().release(pair.region);
        }
        match stopped {
            Ok(()) => Ok(()),
            Err(error) => fault_of(&error, "stopping the device after the test"),
        }
    }

    /// The time.
    pub(super) fn now(&self) -> Instant {
        self.station.now()
    }
}

fn lent<S: Station>(pair: &mut Pair<S>) -> PortPair<'_, Any<S>> {
    PortPair {
        tx: &mut pair.port,
        rx: &mut pair.rx,
    }
}

/// What the driver says, as a fault.
pub(super) fn fault_of<T>(error: &NicError, place: &str) -> Result<T, Stop> {
    fault(
        format!("the driver says: {error}"),
        place,
        "run the test again with the device bound anew; if it stays, report it",
    )
}

fn queue_fault<T>(error: &QueueError, place: &str) -> Result<T, Stop> {
    fault(
        format!("the device wrote what it must not: {error}"),
        place,
        "a fault of the device, or of the driver's idea of it: report it",
    )
}

/// What the peer says, as a fault.
pub(super) fn peer_fault<T>(error: &str) -> Result<T, Stop> {
    fault(
        format!("the peer: {error}"),
        "the other end of the wire",
        "see to the peer; the device may be well",
    )
}
