//! Noticing that a transmit queue hangs.

use core::time::Duration;

use pagewire_hal::{Instant, Registers};

use crate::regs::{Bar, QPTC, TDH, TDT};

/// Time between two looks at a transmit head that does not move, at least. Linux looks every 2 s
/// (`ixgbe_check_tx_hang`), and twice as here; with pages lent to the device it is done sooner.
pub(crate) const HANG_INTERVAL: Duration = Duration::from_millis(500);

/// Watches one transmit queue: with work to do and no progress in two looks in a row it hangs.
///
/// Descriptors that wait for a link count as well: their pages are stranded until a reset.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HangWatch {
    /// When the head was first seen here, and the head.
    seen: Option<(Instant, u32)>,
}

impl HangWatch {
    /// Forgets what was seen.
    pub(crate) fn restart(&mut self) {
        self.seen = None;
    }

    /// One look at queue `pair`. Its counter of frames sent, which reading clears and nobody else
    /// reads, tells a head that stands still from one that has gone round.
    pub(crate) fn is_hung<R: Registers>(
        &mut self,
        registers: &Bar<R>,
        pair: u16,
        now: Instant,
    ) -> bool {
        let head = registers.read_ring(TDH.of(pair));
        if head == registers.read_ring(TDT.of(pair)) {
            self.seen = None;
            return false;
        }
        let sent = registers.read(QPTC.of(pair));
        match self.seen {
            Some((since, at)) if at == head && sent == 0 => {
                now.saturating_since(since) >= HANG_INTERVAL
            }
            _ => {
                self.seen = Some((now, head));
                false
            }
        }
    }
}
