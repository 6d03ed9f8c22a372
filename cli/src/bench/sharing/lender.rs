//! Loans as the sender takes them: one for the connection, and one for each frame on its way.

use std::hint::black_box;
use std::sync::Arc;

use pagewire::hal::{CopyPool, Granule, Ledger, LendError, Lendable, Loan, Region, RegionId};
use pagewire::tcp::checksum::Sum;
use pagewire_models::{Host, HostConfig, HostMemory};

use super::Broken;

/// Frames that are posted before any of them has completed.
const BURST: usize = 32;
/// Bytes of the pool that is copied to: few enough for the second-level cache.
const POOL: usize = 256 * 1024;

/// Books of a queue, for a device that has all regions scattered in pages of the system; and a pool.
pub(super) struct Lender {
    host: Host,
    ledger: Ledger,
    pool: CopyPool<HostMemory>,
    out: Vec<Loan>,
}

/// How a range is cut into frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frames {
    pub(super) unit: usize,
    /// Whether the CPU sums each where it lies.
    pub(super) sums: bool,
}

/// What is kept for a send that is in flight, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// Pages of the program.
    pub(super) pages: u64,
    /// For the loans.
    pub(super) loans: u64,
    /// Slots of the pool, if it were copied.
    pub(super) copied: u64,
}

impl Lender {
    pub(super) fn new() -> Result<Self, Broken> {
        let page =
            Granule::from_bytes(rustix::param::page_size()).ok_or("pages of a strange size")?;
        let host = Host::new(HostConfig {
            granule: page,
            ..HostConfig::default()
        });
        let mut ledger = Ledger::new(host.domain(), u64::BITS as u8, page);
        let pool = CopyPool::new(host.allocate(POOL, page.bytes())?, page, &mut ledger)?;
        Ok(Self {
            host,
            ledger,
            pool,
            out: Vec::with_capacity(BURST),
        })
    }

    /// Makes memory known to the device and to the books.
    pub(super) fn register<B: Lendable>(&mut self, bytes: B) -> Result<RegionId, Broken> {
        let region = self.host.register(bytes)?;
        Ok(self.ledger.register(region as Arc<dyn Region>)?)
    }

    /// Sends bytes of a region: loans are taken, the pieces of each frame looked up, and after each
    /// burst all of it is completed and acknowledged.
    #[inline]
    pub(super) fn share(
        &mut self,
        region: RegionId,
        start: usize,
        len: usize,
        frames: Frames,
    ) -> Result<(), LendError> {
        let whole = self.ledger.lend(region, start, len)?;
        self.carry(whole, frames)
    }

    /// Sends bytes of a region by way of the pool, as much at a time as it has room for.
    #[inline]
    pub(super) fn copy(
        &mut self,
        region: RegionId,
        start: usize,
        len: usize,
        frames: Frames,
    ) -> Result<(), LendError> {
        let mut at = start;
        while at < start + len {
            let ledger = &self.ledger;
            let fill = |room: &mut [u8]| ledger.copy_now(region, at, room);
            let put = self.pool.put(start + len - at, fill)?;
            // All of it is free here.
            let put = put.ok_or(LendError::TooMany)?;
            let whole = self.ledger.lend(self.pool.region(), put.start, put.len())?;
            at += put.len();
            self.carry(whole, frames)?;
        }
        Ok(())
    }

    /// Sends bytes that somebody wants to write to before they are acknowledged: what of them is
    /// lent moves to the pool.
    #[inline]
    pub(super) fn share_and_move(
        &mut self,
        region: RegionId,
        start: usize,
        len: usize,
        frames: Frames,
    ) -> Result<(), LendError> {
        let whole = self.ledger.lend(region, start, len)?;
        self.share(region, start, len, frames)?;
        let mut at = start;
        while at < start + len {
            let ledger = &self.ledger;
            let fill = |room: &mut [u8]| ledger.copy_lent(&whole, at, room);
            let put = self.pool.put(start + len - at, fill)?;
            let put = put.ok_or(LendError::TooMany)?;
            let moved = self.ledger.lend(self.pool.region(), put.start, put.len())?;
            at += put.len();
            self.ledger.give_back(moved);
        }
        self.ledger.give_back(whole);
        Ok(())
    }

    #[inline]
    fn carry(&mut self, mut whole: Loan, frames: Frames) -> Result<(), LendError> {
        let range = whole.range();
        let mut at = range.start;
        while at < range.end {
            let first = at;
            for _ in 0..BURST {
                let piece = frames.unit.min(range.end - at);
                if piece == 0 {
                    break;
                }
                let loan = self.ledger.lend_again(&whole, at, piece)?;
                for run in self.ledger.runs(&loan, at, piece)? {
                    black_box(run);
                }
                if frames.sums {
                    let mut sum = Sum::default();
                    sum.add(self.ledger.bytes(&loan)?);
                    black_box(sum.finish());
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

    /// What is kept while all of a send is in flight.
    pub(super) fn held(
        &mut self,
        region: RegionId,
        len: usize,
        unit: usize,
    ) -> Result<Held, LendError> {
        let whole = self.ledger.lend(region, 0, len)?;
        let frames: Result<Vec<_>, _> = (0..len)
            .step_by(unit)
            .map(|at| self.ledger.lend_again(&whole, at, unit.min(len - at)))
            .collect();
        let counters = self.ledger.counters();
        for loan in frames? {
            self.ledger.give_back(loan);
        }
        self.ledger.give_back(whole);
        let page = rustix::param::page_size();
        Ok(Held {
            pages: counters.pinned_pages * page as u64,
            loans: counters.loans * size_of::<Loan>() as u64,
            copied: len.next_multiple_of(page) as u64,
        })
    }

    /// Makes the pool hot.
    pub(super) fn warm(&mut self) {
        // Cannot fail: nothing is lent.
        let put = self.pool.put(POOL, |room| {
            room.iter_mut().step_by(64).for_each(|byte| *byte = 1);
            Ok::<_, LendError>(())
        });
        let _ = black_box(put);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_takes_loans_and_gives_all_of_them_back() {
        let mut lender = Lender::new().unwrap();
        let region = lender.register(vec![3; 700_000]).unwrap();
        let held = lender.held(region, 200_000, 1448).unwrap();
        let loans = 1 + 200_000_u64.div_ceil(1448);
        assert_eq!(held.loans, loans * size_of::<Loan>() as u64);
        assert!(held.pages >= 200_000 && held.copied >= 200_000);
        for sums in [false, true] {
            let frames = Frames { unit: 1448, sums };
            // More than the pool has at a time.
            lender.share(region, 4096, 600_000, frames).unwrap();
            lender.copy(region, 4096, 600_000, frames).unwrap();
            lender
                .share_and_move(region, 4096, 600_000, frames)
                .unwrap();
            assert!(lender.share(region, 699_999, 2, frames).is_err());
        }
        let counters = lender.ledger.counters();
        assert_eq!((counters.loans, counters.pinned_pages), (0, 0));
        assert_eq!(lender.pool.free_bytes(), lender.pool.len());
    }
}
