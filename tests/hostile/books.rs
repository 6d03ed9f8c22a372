//! The books of a run, kept apart from those of the port, and compared with them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use pagewire::hal::{FrameId, Loan, Region, RegionId, TxPort, TxQueue};
use pagewire_models::{Host, HostRegion};

use super::platform::WatchedMemory;

type Port<Q> = TxPort<Q, WatchedMemory>;

/// Bytes of the program, of which all regions are parts.
pub(crate) static PATTERN: [u8; 20_000] = pattern();

const fn pattern() -> [u8; 20_000] {
    let mut bytes = [0; 20_000];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = (at * 31 + at / 251) as u8;
        at += 1;
    }
    bytes
}

/// A region that was registered.
pub(crate) struct Known {
    pub(crate) id: RegionId,
    /// The part of the pattern.
    pub(crate) bytes: &'static [u8],
    /// The program's own loan of all of it.
    pub(crate) loan: Option<Loan>,
    /// Pieces lent to the device.
    pub(crate) lent: u64,
    pub(crate) released: bool,
    region: Weak<HostRegion<&'static [u8]>>,
}

impl Known {
    fn is_there(&self) -> bool {
        self.region.strong_count() > 0
    }
}

/// What is out by what the port has said.
#[derive(Default)]
pub(crate) struct Books {
    pub(crate) regions: Vec<Known>,
    /// Frames that are out, and the regions of their pieces.
    pub(crate) out: HashMap<FrameId, Vec<usize>>,
    pub(crate) completed: u64,
    pub(crate) taken_back: u64,
}

impl Books {
    /// Registers a part of the pattern; the ledger's share is then the only one.
    pub(crate) fn register<Q: TxQueue>(
        &mut self,
        host: &Host,
        port: &mut Port<Q>,
        start: usize,
        len: usize,
    ) {
        let bytes = PATTERN.get(start..start + len).unwrap_or(&PATTERN);
        let Ok(region) = host.register(bytes) else {
            return;
        };
        let weak = Arc::downgrade(&region);
        let ledger = port.ledger_mut();
        let id = ledger.register(region as Arc<dyn Region>).unwrap();
        let loan = ledger.lend(id, 0, bytes.len()).unwrap();
        self.regions.push(Known {
            id,
            bytes,
            loan: Some(loan),
            lent: 0,
            released: false,
            region: weak,
        });
    }

    /// Releases a region; the program's own loan comes back too.
    pub(crate) fn release<Q: TxQueue>(&mut self, port: &mut Port<Q>, index: usize) {
        let Some(known) = self.regions.get_mut(index) else {
            return;
        };
        if let Some(loan) = known.loan.take() {
            port.ledger_mut().give_back(loan);
        }
        let again = port.ledger_mut().release(known.id);
        assert_eq!(again.is_ok(), !known.released, "{again:?}");
        known.released = true;
    }

    pub(crate) fn posted(&mut self, frame: FrameId, pieces: Vec<usize>) {
        for index in &pieces {
            self.regions[*index].lent += 1;
        }
        let before = self.out.insert(frame, pieces);
        assert!(before.is_none(), "a number of a frame was given twice");
    }

    /// The port says that a frame is done.
    pub(crate) fn done(&mut self, frame: FrameId) {
        let Some(pieces) = self.out.remove(&frame) else {
            panic!("{frame:?} was handed back and was not out");
        };
        for index in pieces {
            self.regions[index].lent -= 1;
        }
    }

    /// All that was out has been taken back by a reset.
    pub(crate) fn all_back(&mut self) {
        let all: Vec<FrameId> = self.out.keys().copied().collect();
        self.taken_back += all.len() as u64;
        all.into_iter().for_each(|frame| self.done(frame));
    }

    /// The port's books say the same.
    pub(crate) fn check<Q: TxQueue>(&self, port: &mut Port<Q>, buffers: usize) {
        while port.ledger_mut().take_released().is_some() {}
        let counters = port.ledger().counters();
        let own = self.regions.iter().filter(|known| known.loan.is_some());
        let lent: u64 = self.regions.iter().map(|known| known.lent).sum();
        assert_eq!(counters.loans, own.count() as u64 + lent, "loans");
        assert_eq!(counters.pinned_pages == 0, counters.loans == 0, "pages");
        assert_eq!(counters.strays, 0, "loans of nobody");
        assert_eq!(port.counters().stray_tokens, 0, "tokens that were not out");
        assert_eq!(port.outstanding(), self.out.len(), "frames out");
        let (small, large) = port.vacant_buffers();
        assert_eq!(small + large + self.out.len(), buffers, "buffers");
        assert!(self.out.keys().all(|frame| port.in_flight(*frame)));
        for known in &self.regions {
            let held = !known.released || known.lent > 0;
            assert_eq!(known.is_there(), held, "a region early, or never");
        }
    }

    /// The port is gone: what the device had of it leaks, nothing else.
    pub(crate) fn check_dropped(&self) {
        for known in &self.regions {
            let held = known.lent > 0 || known.loan.is_some();
            assert_eq!(known.is_there(), held, "a region was freed early, or leaks");
        }
    }
}
