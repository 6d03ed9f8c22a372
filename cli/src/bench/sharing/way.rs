//! A send of each case, and what the program does between two of them.

use super::Broken;
use super::case::{Case, Memory, Rewrite, Way};
use super::lender::{Lender, sum};
use super::ring::Ring;
use super::source::{FileBytes, Protected, Sources, map};

/// What can be timed.
pub(super) trait Sender {
    /// Slots that there are.
    fn slots(&self) -> usize;

    /// Writes a byte of each page of a slot.
    fn rewrite(&mut self, slot: usize) -> Result<(), Broken>;

    /// Sends a slot.
    fn send(&mut self, slot: usize) -> Result<(), Broken>;

    /// Makes hot what would be, however cold the bytes are.
    fn warm(&mut self);
}

/// What the sender of a case does with all that it needs: monomorphised, so that nothing is called
/// by pointer in what is timed.
pub(super) trait Timing {
    /// Times a sender.
    fn time(&mut self, sender: &mut impl Sender, case: &Case) -> Result<f64, Broken>;
}

/// Times a send of a case.
pub(super) fn time(
    case: &'static Case,
    sources: &mut Sources,
    timing: &mut impl Timing,
) -> Result<f64, Broken> {
    let Sources {
        size,
        stride,
        slots,
        huge_slots,
        plain,
        lender,
        file,
        protected,
        huge,
        ring,
        old,
    } = sources;
    let at = Place {
        size: *size,
        stride: *stride,
        slots: *slots,
    };
    let no_protector = "there is no protector";
    match (case.memory, case.way) {
        (Memory::Plain, _) => timing.time(
            &mut Copying {
                case,
                at,
                plain,
                ring,
            },
            case,
        ),
        (Memory::Owned, _) => timing.time(&mut Owned { case, at, lender }, case),
        (Memory::File, Way::Copy | Way::Read) => timing.time(&mut Reading { at, file, ring }, case),
        (Memory::File, _) => timing.time(
            &mut Live {
                case,
                at,
                file,
                lender,
            },
            case,
        ),
        (Memory::Protected, _) => {
            let protected = protected.as_mut().ok_or(no_protector)?;
            timing.time(
                &mut Watched {
                    case,
                    at,
                    protected,
                    lender,
                    old,
                },
                case,
            )
        }
        (Memory::Huge, _) => {
            let protected = huge.as_mut().ok_or(no_protector)?;
            let at = Place {
                slots: *huge_slots,
                ..at
            };
            timing.time(
                &mut Watched {
                    case,
                    at,
                    protected,
                    lender,
                    old,
                },
                case,
            )
        }
    }
}

/// Where slots are.
#[derive(Clone, Copy)]
struct Place {
    size: usize,
    stride: usize,
    slots: usize,
}

impl Place {
    #[inline]
    fn start(&self, slot: usize) -> usize {
        slot * self.stride
    }
}

/// Nothing is written here between sends.
const NOT_WRITTEN: &str = "these bytes are not the program's to write";

struct Copying<'a> {
    case: &'static Case,
    at: Place,
    plain: &'a mut [u8],
    ring: &'a mut Ring,
}

impl Sender for Copying<'_> {
    fn slots(&self) -> usize {
        self.at.slots
    }

    #[inline]
    fn rewrite(&mut self, slot: usize) -> Result<(), Broken> {
        let start = self.at.start(slot);
        let bytes = self.plain.get_mut(start..start + self.at.size);
        touch(bytes.unwrap_or_default());
        Ok(())
    }

    #[inline]
    fn send(&mut self, slot: usize) -> Result<(), Broken> {
        let start = self.at.start(slot);
        let bytes = self
            .plain
            .get(start..start + self.at.size)
            .unwrap_or_default();
        self.ring.copy(bytes, self.case.unit, self.case.sums);
        Ok(())
    }

    fn warm(&mut self) {
        self.ring.warm();
    }
}

/// Writes a byte of each page.
#[inline]
fn touch(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().step_by(rustix::param::page_size()) {
        *byte = std::hint::black_box(byte.wrapping_add(1));
    }
}

struct Owned<'a> {
    case: &'static Case,
    at: Place,
    lender: &'a mut Lender,
}

impl Sender for Owned<'_> {
    fn slots(&self) -> usize {
        self.at.slots
    }

    fn rewrite(&mut self, _: usize) -> Result<(), Broken> {
        Err(NOT_WRITTEN.into())
    }

    #[inline]
    fn send(&mut self, slot: usize) -> Result<(), Broken> {
        let start = self.at.start(slot);
        if self.case.sums {
            sum(self.lender.bytes(start, self.at.size), self.case.unit);
        }
        self.lender.send(start, self.at.size, self.case.unit)?;
        Ok(())
    }

    fn warm(&mut self) {}
}

struct Reading<'a> {
    at: Place,
    file: &'a FileBytes,
    ring: &'a mut Ring,
}

impl Sender for Reading<'_> {
    fn slots(&self) -> usize {
        self.at.slots
    }

    fn rewrite(&mut self, _: usize) -> Result<(), Broken> {
        Err(NOT_WRITTEN.into())
    }

    #[inline]
    fn send(&mut self, slot: usize) -> Result<(), Broken> {
        self.ring
            .read(&self.file.file, self.at.start(slot), self.at.size)?;
        Ok(())
    }

    fn warm(&mut self) {
        self.ring.warm();
    }
}

struct Live<'a> {
    case: &'static Case,
    at: Place,
    file: &'a FileBytes,
    lender: &'a mut Lender,
}

impl Sender for Live<'_> {
    fn slots(&self) -> usize {
        self.at.slots
    }

    fn rewrite(&mut self, _: usize) -> Result<(), Broken> {
        Err(NOT_WRITTEN.into())
    }

    #[inline]
    fn send(&mut self, slot: usize) -> Result<(), Broken> {
        let (start, len) = (self.at.start(slot), self.at.size);
        let mapped = match self.case.way {
            Way::MapAndShare => Some(map(&self.file.file, start, len)?),
            _ => None,
        };
        // What a platform keeps of it: the address.
        let bytes = mapped
            .as_deref()
            .unwrap_or_else(|| self.file.bytes(start, len));
        std::hint::black_box(bytes.as_ptr());
        self.lender.send(start, len, self.case.unit)?;
        Ok(())
    }

    fn warm(&mut self) {}
}

struct Watched<'a> {
    case: &'static Case,
    at: Place,
    protected: &'a mut Protected,
    lender: &'a mut Lender,
    old: &'a mut Ring,
}

impl Sender for Watched<'_> {
    fn slots(&self) -> usize {
        self.at.slots
    }

    #[inline]
    fn rewrite(&mut self, slot: usize) -> Result<(), Broken> {
        let buffer = self
            .protected
            .buffers
            .get_mut(slot)
            .ok_or("no such buffer")?;
        if self.case.rewrite == Rewrite::ByValue {
            touch(buffer.bytes_mut(0..self.at.size)?);
            return Ok(());
        }
        let first = buffer.as_ptr()?;
        for offset in (0..self.at.size).step_by(rustix::param::page_size()) {
            // SAFETY: the offset is less than the length of the buffer.
            let place = unsafe { first.byte_add(offset) };
            // SAFETY: the bytes are the buffer's, which is borrowed mutably, so there is no slice
            // of them, and no loan: this thread has dropped it.
            unsafe { place.write_volatile(6) };
        }
        Ok(())
    }

    #[inline]
    fn send(&mut self, slot: usize) -> Result<(), Broken> {
        let buffer = self.protected.buffers.get(slot).ok_or("no such buffer")?;
        let lent = buffer.lend(0..self.at.size)?;
        if self.case.sums {
            sum(lent.bytes(), self.case.unit);
        }
        self.lender
            .send(self.at.start(slot), self.at.size, self.case.unit)?;
        if self.case.rewrite == Rewrite::InFlight {
            self.old
                .copy(lent.bytes(), rustix::param::page_size(), false);
        }
        Ok(())
    }

    fn warm(&mut self) {
        self.old.warm();
    }
}
