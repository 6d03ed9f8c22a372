//! MSI-X: one vector for receive, one for transmit, one for changes of the configuration, or
//! fewer (virtio 1.3, section 4.1.5.1).

use pagewire_hal::{Causes, NicError, Platform, Registers};

use crate::init::{RECEIVE_QUEUE, TRANSMIT_QUEUE};
use crate::regs::{CONFIG_MSIX_VECTOR, NO_VECTOR, QUEUE_MSIX_VECTOR, QUEUE_SELECT, Structures};

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

    const fn configuration(self) -> u16 {
        self.last(2)
    }
}

/// Assigns the vectors. A device that has no resources for one says so by reading back none.
pub(crate) fn program<R: Registers>(
    device: &Structures<R>,
    vectors: Vectors,
) -> Result<(), NicError> {
    let common = &device.common;
    let mut taken = true;
    common.write16(CONFIG_MSIX_VECTOR, vectors.configuration());
    taken &= common.read16(CONFIG_MSIX_VECTOR) != NO_VECTOR;
    for (queue, vector) in [
        (RECEIVE_QUEUE, vectors.receive()),
        (TRANSMIT_QUEUE, vectors.transmit()),
    ] {
        common.write16(QUEUE_SELECT, queue);
        common.write16(QUEUE_MSIX_VECTOR, vector);
        taken &= common.read16(QUEUE_MSIX_VECTOR) != NO_VECTOR;
    }
    if taken {
        Ok(())
    } else {
        Err(NicError::NotOffered {
            what: "resources for its MSI-X vectors",
        })
    }
}

/// What has fired since the last time. The device goes on interrupting by itself: the queues ask
/// for the next interrupt when they have found nothing more to do.
pub(crate) fn take<P: Platform>(platform: &mut P, vectors: Vectors) -> Causes {
    let mut causes = Causes::empty();
    for vector in 0..vectors.count {
        if !platform.take_interrupt(vector) {
            continue;
        }
        for (of, cause) in [
            (vectors.receive(), Causes::RECEIVE),
            (vectors.transmit(), Causes::TRANSMIT),
            (vectors.configuration(), Causes::LINK),
        ] {
            causes.set(cause, causes.contains(cause) || of == vector);
        }
    }
    causes
}
