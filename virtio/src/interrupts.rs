//! MSI-X: one vector for each queue and one for changes of the configuration, or fewer (virtio 1.3,
//! section 4.1.5.1).
//!
//! A queue's vector is one of the fields that are set before the queue is enabled (section
//! 4.1.4.3.2). So the vectors are planned when the device is opened and mapped at every start,
//! whether or not interrupts are on. While MSI-X is off at the function the mapping has no effect
//! (section 4.1.5.1.2 speaks of it where MSI-X is present and enabled): the device would raise
//! INTx, which the command register forbids it. QEMU maps a vector of its table at any time; its
//! vhost backends take their short way for interrupts only where MSI-X was on at DRIVER_OK, which
//! it is after the first reset.
//!
//! How many vectors there are only the platform knows, and a plan with more would lose interrupts:
//! so it is asked at open, by setting them up and turning them off again.

use pagewire_hal::driver::Vectors;
use pagewire_hal::{Causes, NicError, Platform, Registers, pci};

use crate::regs::{CONFIG_MSIX_VECTOR, NO_VECTOR, QUEUE_MSIX_VECTOR, QUEUE_SELECT, Structures};

/// PCI capability: MSI-X.
const CAPABILITY_MSIX: u8 = 0x11;
/// The size of the table less 1, in bits 26:16 of the capability's first word.
const TABLE_SIZE_SHIFT: u32 = 16;
const TABLE_SIZE_MASK: u32 = 0x7FF;

/// Maps one event. A device that has no resources for it reads back none.
fn map<R: Registers>(device: &Structures<R>, at: u32, vector: u16) -> bool {
    device.common.write16(at, vector);
    device.common.read16(at) == vector
}

fn map_all<R: Registers>(device: &Structures<R>, vectors: Vectors) -> bool {
    let mut taken = map(device, CONFIG_MSIX_VECTOR, vectors.rest());
    for index in 0..2 * vectors.pairs() {
        device.common.write16(QUEUE_SELECT, index);
        taken = taken && map(device, QUEUE_MSIX_VECTOR, vectors.queue(index));
    }
    taken
}

fn unmap_all<R: Registers>(device: &Structures<R>, pairs: u16) {
    device.common.write16(CONFIG_MSIX_VECTOR, NO_VECTOR);
    for index in 0..2 * pairs {
        device.common.write16(QUEUE_SELECT, index);
        device.common.write16(QUEUE_MSIX_VECTOR, NO_VECTOR);
    }
}

/// What is known of the device's interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Interrupts {
    pairs: u16,
    /// Vectors that the platform grants, at least 1, or why there are none.
    granted: Result<u16, NicError>,
    /// What is mapped and can be turned on; none before the first start, if the device had no
    /// resources, or if the platform no longer had as many vectors.
    mapped: Option<Vectors>,
    /// Whether they are on.
    on: bool,
}

const NONE: NicError = NicError::NotOffered { what: "MSI-X" };

impl Interrupts {
    /// Asks how many vectors there are for `pairs` queue pairs. The device is reset; interrupts are
    /// off afterwards.
    pub(crate) fn plan<P: Platform>(platform: &mut P, pairs: u16) -> Self {
        Self {
            pairs,
            granted: ask(platform, Vectors::wanted(pairs)),
            mapped: None,
            on: false,
        }
    }

    /// Maps all events, before the first queue is enabled. Where the device has no resources for as
    /// many vectors, fewer are tried.
    pub(crate) fn map<R: Registers>(&mut self, device: &Structures<R>) {
        self.mapped = None;
        let Ok(granted) = self.granted else { return };
        for count in [granted, self.pairs + 1, 2, 1] {
            let vectors = Vectors::new(count.min(granted), self.pairs);
            if map_all(device, vectors) {
                self.mapped = Some(vectors);
                return;
            }
        }
        // Without interrupts everything works by polling.
        log::warn!("virtio-net: the device has no resources for its MSI-X vectors");
        unmap_all(device, self.pairs);
    }

    /// Turns interrupts on; see [`Nic::enable_interrupts`](pagewire_hal::Nic::enable_interrupts).
    pub(crate) fn enable<P: Platform>(&mut self, platform: &mut P) -> Result<u16, NicError> {
        let planned = self.granted?;
        if self.mapped.is_none() {
            return Err(NicError::NotOffered {
                what: "MSI-X vectors that could be mapped when it was started and are still there",
            });
        }
        if self.on {
            // Setting them up again might lose what has fired.
            return Ok(planned);
        }
        let granted = platform.enable_interrupts(planned)?;
        if granted < planned {
            // The running queues have vectors that there are no more. The next start has a plan for
            // what there is.
            turn_off(platform);
            self.mapped = None;
            self.granted = if granted == 0 { Err(NONE) } else { Ok(granted) };
            return Err(NicError::NotOffered {
                what: "MSI-X vectors that there were when the device was started",
            });
        }
        self.on = true;
        Ok(planned)
    }

    /// What has fired since the last time. The device goes on interrupting by itself: the queues
    /// ask for the next interrupt when they have found nothing more to do.
    pub(crate) fn take<P: Platform>(&self, platform: &mut P) -> Causes {
        let (true, Some(vectors)) = (self.on, self.mapped) else {
            return Causes::empty();
        };
        let (fired, mut causes) = vectors.take(platform);
        if fired >> vectors.rest() & 1 != 0 {
            causes |= Causes::LINK;
        }
        causes
    }
}

/// The size of the function's MSI-X table; 0 if it has none.
fn table_size<P: Platform>(platform: &P) -> u16 {
    let mut all = pci::capabilities(platform);
    let found = all.find_map(|(id, at)| (id == CAPABILITY_MSIX).then_some(at));
    found.map_or(0, |at| {
        let word = platform.read_config(at);
        (word >> TABLE_SIZE_SHIFT & TABLE_SIZE_MASK) as u16 + 1
    })
}

/// How many vectors there are, up to `wanted` and never beyond the table (virtio 1.3, "MSI-X
/// Vector Configuration").
fn ask<P: Platform>(platform: &mut P, wanted: u16) -> Result<u16, NicError> {
    let wanted = wanted.min(table_size(platform));
    if wanted == 0 {
        return Err(NONE);
    }
    let granted = platform.enable_interrupts(wanted)?.min(wanted);
    turn_off(platform);
    if granted == 0 { Err(NONE) } else { Ok(granted) }
}

fn turn_off<P: Platform>(platform: &mut P) {
    if let Err(error) = platform.enable_interrupts(0) {
        log::warn!("virtio-net: interrupts could not be turned off: {error}");
    }
}
