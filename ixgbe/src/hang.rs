//! Noticing that a transmit queue hangs.

use pagewire_hal::{Instant, Registers, driver};

use crate::regs::{Bar, PerQueue, QPTC, TDH, TDT};

/// Watches one transmit queue by its head and tail. Frames behind a head that has run ahead to the
/// tail, see [`tx`](crate::tx), are not noticed. Linux looks every 2 s (`ixgbe_check_tx_hang`), and twice as here; with
/// pages lent to the device it is done sooner.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HangWatch {
    watch: driver::HangWatch,
    /// Frames that the queue has sent while it was watched.
    sent: u64,
}

impl HangWatch {
    /// Forgets what was seen.
    pub(crate) fn restart(&mut self) {
        self.watch.restart();
    }

    /// One look at queue `pair`. Its counter of frames sent is cleared by reading, and nobody else
    /// reads it.
    pub(crate) fn is_hung<R: Registers>(
        &mut self,
        registers: &Bar<R>,
        pair: u16,
        now: Instant,
    ) -> bool {
        let place = [TDH, TDT].map(|register| registers.read_ring(register.of(pair)));
        let sent = &mut self.sent;
        self.watch.is_hung(place, now, || {
            *sent = sent.wrapping_add(u64::from(registers.read(QPTC.of(pair))));
            *sent
        })
    }
}
