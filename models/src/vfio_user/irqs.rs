//! Interrupts: an eventfd of the client for each.

use std::os::fd::OwnedFd;

use pagewire_vfio_user::{Errno, IrqSet};
use rustix::fs::OFlags;

/// One interrupt.
#[derive(Debug, Default)]
struct Irq {
    eventfd: Option<OwnedFd>,
    masked: bool,
    /// It came while it was masked.
    pending: bool,
}

impl Irq {
    fn signal(&mut self) {
        if self.masked {
            self.pending = true;
        } else if let Some(eventfd) = &self.eventfd {
            // Full, or no eventfd: the client's loss.
            let _ = rustix::io::write(eventfd, &1_u64.to_ne_bytes());
        }
    }
}

/// The interrupts of a kind.
#[derive(Debug)]
pub(super) struct Irqs {
    all: Vec<Irq>,
}

impl Irqs {
    /// `count` of them, none connected.
    pub(super) fn new(count: u16) -> Self {
        let mut all = Vec::new();
        all.resize_with(usize::from(count), Irq::default);
        Self { all }
    }

    /// None is connected.
    pub(super) fn forget(&mut self) {
        self.all.fill_with(Irq::default);
    }

    /// Whether any is connected.
    pub(super) fn is_connected(&self) -> bool {
        self.all.iter().any(|irq| irq.eventfd.is_some())
    }

    /// The device has sent interrupt `number`.
    pub(super) fn signal(&mut self, number: u16) {
        if let Some(irq) = self.all.get_mut(usize::from(number)) {
            irq.signal();
        }
    }

    /// The pin: it is asserted now. The client is told once, and again when it has unmasked it.
    pub(super) fn assert_pin(&mut self) {
        if let Some(pin) = self.all.first_mut()
            && !pin.masked
            && pin.eventfd.is_some()
        {
            pin.signal();
            pin.masked = true;
        }
    }

    /// Does what the client wants of interrupts `start` and the `count` behind it.
    pub(super) fn set(&mut self, start: u32, count: u32, set: IrqSet) -> Result<(), Errno> {
        let chosen = self
            .all
            .iter_mut()
            .skip(start as usize)
            .take(count as usize);
        match set {
            IrqSet::Connect(eventfds) => {
                for (irq, eventfd) in chosen.zip(eventfds) {
                    if let Some(eventfd) = &eventfd {
                        prepare(eventfd)?;
                    }
                    *irq = Irq {
                        eventfd,
                        ..Irq::default()
                    };
                }
            }
            IrqSet::Disconnect => self.forget(),
            IrqSet::Trigger(which) => {
                for (irq, _) in chosen.zip(which).filter(|(_, wanted)| *wanted) {
                    irq.signal();
                }
            }
            IrqSet::Mask => chosen.for_each(|irq| irq.masked = true),
            IrqSet::Unmask => {
                for irq in chosen {
                    irq.masked = false;
                    if std::mem::take(&mut irq.pending) {
                        irq.signal();
                    }
                }
            }
            IrqSet::UnmaskBy(_) => return Err(Errno::OPNOTSUPP),
        }
        Ok(())
    }
}

/// A write to it must not block, however full the client leaves it. (One that makes it blocking
/// again holds up nobody but the device that it has itself.)
fn prepare(eventfd: &OwnedFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(eventfd)?;
    rustix::fs::fcntl_setfl(eventfd, flags | OFlags::NONBLOCK)
}
