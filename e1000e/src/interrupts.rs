//! MSI-X: one vector for receive, one for transmit, one for the rest, or fewer.
//!
//! As Linux e1000e sets the 82574 up: a message clears its cause (EIAC), and the cause is let
//! through again after the work is done (IMS). QEMU masks a cause that it clears in this way, so
//! the mask is set again at every [`take`].
//!
//! Intel's specification update tells of an interrupt that is missed after the causes have been
//! read. They are read here only when the vector of the other causes has fired, and whatever is
//! found for receive and transmit then is reported with it.

use pagewire_hal::{Causes, Platform, Registers};

use crate::regs::{Bar, CTRL_EXT, Cause, CtrlExt, EIAC, IAM, ICR, ICS, IMC, IMS, IVAR, Ivar};

/// Vectors that the driver has use for.
pub(crate) const VECTORS: u16 = 3;

/// Which vector says what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Vectors {
    count: u16,
}

impl Vectors {
    /// Of `count` vectors, at least 1.
    pub(crate) const fn new(count: u16) -> Self {
        Self { count }
    }

    /// Vectors in use.
    pub(crate) const fn count(self) -> u16 {
        self.count
    }

    const fn last(self, wanted: u16) -> u16 {
        let last = self.count.saturating_sub(1);
        if wanted < last { wanted } else { last }
    }

    const fn receive(self) -> u16 {
        0
    }

    const fn transmit(self) -> u16 {
        self.last(1)
    }

    const fn other(self) -> u16 {
        self.last(2)
    }
}

const QUEUES: Cause = Cause::RXQ0.union(Cause::TXQ0);
const OTHERS: Cause = Cause::OTHER.union(Cause::LSC).union(Cause::RXO);

/// Assigns the causes to the vectors and lets them through.
pub(crate) fn program<R: Registers>(registers: &Bar<R>, vectors: Vectors) {
    let ivar = u32::from(vectors.receive())
        | u32::from(vectors.transmit()) << 8
        | u32::from(vectors.other()) << 16
        | (Ivar::RXQ0_VALID | Ivar::TXQ0_VALID | Ivar::OTHER_VALID).bits()
        | Ivar::TX_EVERY_WRITE_BACK.bits();
    registers.write(IVAR, ivar);
    let set = CtrlExt::PBA_CLR | CtrlExt::EIAME;
    registers.change(CTRL_EXT, CtrlExt::IAME.bits(), set.bits());
    registers.write(IAM, 0);
    registers.write(EIAC, QUEUES.bits());
    registers.write(IMS, (QUEUES | OTHERS).bits());
}

/// Masks everything.
pub(crate) fn mask<R: Registers>(registers: &Bar<R>) {
    registers.write(IMC, u32::MAX);
}

/// Sets the causes of `vector`, as if they had come up.
pub(crate) fn fire<R: Registers>(registers: &Bar<R>, vectors: Vectors, vector: u16) {
    let mut causes = Cause::empty();
    causes.set(Cause::RXQ0, vector == vectors.receive());
    causes.set(Cause::TXQ0, vector == vectors.transmit());
    causes.set(Cause::OTHER | Cause::LSC, vector == vectors.other());
    registers.write(ICS, causes.bits());
}

/// What has fired since the last time; lets it fire again.
pub(crate) fn take<P: Platform>(
    platform: &mut P,
    registers: &Bar<P::Registers>,
    vectors: Vectors,
) -> Causes {
    let mut fired = [false; VECTORS as usize];
    for (vector, fired) in (0..vectors.count()).zip(&mut fired) {
        *fired = platform.take_interrupt(vector);
    }
    let has = |vector: u16| fired.get(usize::from(vector)).copied().unwrap_or(false);
    let mut causes = Causes::empty();
    causes.set(Causes::RECEIVE, has(vectors.receive()));
    causes.set(Causes::TRANSMIT, has(vectors.transmit()));
    if has(vectors.other()) {
        causes |= take_others(registers);
    }
    if fired.contains(&true) {
        registers.write(IMS, (QUEUES | OTHERS).bits());
    }
    causes
}

/// Reads the causes and clears those that no message has cleared.
fn take_others<R: Registers>(registers: &Bar<R>) -> Causes {
    let word = registers.read(ICR);
    if word == u32::MAX {
        return Causes::LINK;
    }
    let found = Cause::from_bits_retain(word);
    // Only what was found: a cause that came since must not be lost.
    registers.write(ICR, (found & OTHERS).bits());
    let mut causes = Causes::empty();
    causes.set(Causes::RECEIVE, found.contains(Cause::RXQ0));
    causes.set(Causes::TRANSMIT, found.contains(Cause::TXQ0));
    causes.set(Causes::OVERRUN, found.contains(Cause::RXO));
    causes.set(Causes::LINK, found.contains(Cause::LSC));
    causes
}
