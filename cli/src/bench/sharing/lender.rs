//! Loans as the sender takes them: one for the connection, and one for each frame on its way.

use std::hint::black_box;
use std::sync::Arc;

use pagewire::hal::{Granule, Ledger, LendError, Loan, Region, RegionId};
use pagewire::tcp::checksum::Sum;
use pagewire_models::{Host, HostConfig, HostRegion};

use super::Broken;

/// Frames that are posted before any of them has completed.
const BURST: usize = 32;

/// Bytes that nobody writes, and the books over them.
///
/// Where the bytes sent are others (a protected buffer, a file), the loans are of these all the same:
/// the books do not look at the bytes.
pub(super) struct Lender {
    ledger: Ledger,
    region: Arc<HostRegion<Vec<u8>>>,
    id: RegionId,
    out: Vec<Loan>,
}

/// What is kept for a send that is in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// Pages of the program, in bytes.
    pub(super) pages: u64,
    /// For the loans, in bytes.
    pub(super) loans: u64,
}

impl Lender {
    /// Registers bytes, in pages of the system, for a device that has them scattered.
    pub(super) fn new(bytes: Vec<u8>) -> Result<Self, Broken> {
        let page =
            Granule::from_bytes(rustix::param::page_size()).ok_or("pages of a strange size")?;
        let host = Host::new(HostConfig {
            granule: page,
            ..HostConfig::default()
        });
        let region = host.register(bytes)?;
        let mut ledger = Ledger::new(region.domain(), u64::BITS as u8, page);
        let id = ledger.register(Arc::clone(&region) as Arc<dyn Region>)?;
        Ok(Self {
            ledger,
            region,
            id,
            out: Vec::with_capacity(BURST),
        })
    }

    /// Sends bytes in frames of `unit` bytes: loans are taken, the pieces of each frame looked up,
    /// and after each burst all of it is completed and acknowledged.
    #[inline]
    pub(super) fn send(&mut self, start: usize, len: usize, unit: usize) -> Result<(), LendError> {
        let mut whole = self.ledger.lend(self.id, start, len)?;
        let end = start + len;
        let mut at = start;
        while at < end {
            let first = at;
            for _ in 0..BURST {
                let piece = unit.min(end - at);
                if piece == 0 {
                    break;
                }
                let loan = self.ledger.lend_again(&whole, at, piece)?;
                for run in self.ledger.runs(&loan, at, piece)? {
                    black_box(run);
                }
                self.out.push(loan);
                at += piece;
            }
            for loan in self.out.drain(..) {
                self.ledger.give_back(loan);
            }
            self.ledger.trim_front(&mut whole, at - first);
        }
        self.ledger.give_back(whole);
        Ok(())
    }

    /// The bytes.
    #[inline]
    pub(super) fn bytes(&self, start: usize, len: usize) -> &[u8] {
        self.region
            .bytes()
            .get(start..start + len)
            .unwrap_or_default()
    }

    /// What is kept while all of a send is in flight.
    pub(super) fn held(
        &mut self,
        start: usize,
        len: usize,
        unit: usize,
    ) -> Result<Held, LendError> {
        let whole = self.ledger.lend(self.id, start, len)?;
        let starts = (start..start + len).step_by(unit);
        let frames: Result<Vec<_>, _> = starts
            .map(|at| {
                self.ledger
                    .lend_again(&whole, at, unit.min(start + len - at))
            })
            .collect();
        let counters = self.ledger.counters();
        for loan in frames? {
            self.ledger.give_back(loan);
        }
        self.ledger.give_back(whole);
        Ok(Held {
            pages: counters.pinned_pages * rustix::param::page_size() as u64,
            loans: counters.loans * size_of::<Loan>() as u64,
        })
    }
}

/// Sums bytes where they lie, frame by frame.
#[inline]
pub(super) fn sum(bytes: &[u8], unit: usize) {
    for frame in bytes.chunks(unit) {
        let mut sum = Sum::default();
        sum.add(frame);
        black_box(sum.finish());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_takes_loans_and_gives_all_of_them_back() {
        let mut lender = Lender::new(vec![3; 300_000]).unwrap();
        let held = lender.held(4096, 200_000, 1448).unwrap();
        assert_eq!(
            held.loans,
            (1 + 200_000_u64.div_ceil(1448)) * size_of::<Loan>() as u64
        );
        assert!(held.pages >= 200_000);
        lender.send(4096, 200_000, 1448).unwrap();
        let counters = lender.ledger.counters();
        assert_eq!((counters.loans, counters.pinned_pages), (0, 0));
        assert_eq!(lender.bytes(299_999, 1), [3]);
        assert!(lender.send(299_999, 2, 1448).is_err());
    }
}
