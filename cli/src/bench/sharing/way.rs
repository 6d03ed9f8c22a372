//! A send of each case, and what the program does between two of them.

use std::fs::File;
use std::hint::black_box;

use pagewire::hal::RegionId;

use super::Broken;
use super::case::{Case, Memory, Rewrite, Way};
use super::lender::{Frames, Lender};
use super::ring::Ring;
use super::source::{Protected, Sources, map};

/// What can be timed.
pub(super) trait Sender {
    /// Slots that there are.
    fn slots(&self) -> usize;

    /// Writes a byte of each page of a slot, where there is a case in which somebody does.
    fn rewrite(&mut self, _: usize) -> Result<(), Broken> {
        Err("these bytes are not the program's to write".into())
    }

    /// Sends a slot.
    fn send(&mut self, slot: usize) -> Result<(), Broken>;

    /// Makes hot what would be, however cold the bytes are.
    fn warm(&mut self) {}
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
    let frames = Frames {
        unit: case.unit,
        sums: case.sums,
    };
    let at = Place {
        size: sources.size,
        stride: sources.stride,
        slots: sources.slots,
        frames,
    };
    let region = match case.memory {
        Memory::File => sources.live,
        _ => sources.owned,
    };
    let lender = &mut sources.lender;
    if case.protects() {
        let watched = sources.watched.as_mut().ok_or("there is no protector")?;
        let protected = match (case.way, case.memory) {
            (Way::Copy, _) => &mut watched.copied,
            (_, Memory::Huge) => &mut watched.huge,
            (_, Memory::Signalled) => &mut watched.signalled,
            _ => &mut watched.small,
        };
        return timing.time(
            &mut Watched {
                case,
                at,
                protected,
                lender,
            },
            case,
        );
    }
    match case.way {
        Way::Memcpy => {
            let (plain, ring) = (&sources.plain, &mut sources.ring);
            timing.time(&mut Copying { at, plain, ring }, case)
        }
        Way::Copy => timing.time(&mut Pooled { at, region, lender }, case),
        Way::Share => timing.time(&mut Shared { at, region, lender }, case),
        Way::MapAndShare => {
            let shared = Shared { at, region, lender };
            let file = &sources.file;
            timing.time(&mut Mapped { shared, file }, case)
        }
    }
}

/// Where slots are, and how they are cut into frames.
#[derive(Clone, Copy)]
struct Place {
    size: usize,
    stride: usize,
    slots: usize,
    frames: Frames,
}

impl Place {
    #[inline]
    fn start(&self, slot: usize) -> usize {
        slot * self.stride
    }
}

/// Copied behind headers.
struct Copying<'a> {
    at: Place,
    plain: &'a [u8],
    ring: &'a mut Ring,
}

impl Sender for Copying<'_> {
    fn slots(&self) -> usize {
        self.at.slots
    }

    #[inline]
    fn send(&mut self, slot: usize) -> Result<(), Broken> {
        let start = self.at.start(slot);
        let bytes = self.plain.get(start..start + self.at.size);
        self.ring.copy(bytes.unwrap_or_default(), self.at.frames);
        Ok(())
    }

    fn warm(&mut self) {
        self.ring.warm();
    }
}

/// Copied to the pool.
struct Pooled<'a> {
    at: Place,
    region: RegionId,
    lender: &'a mut Lender,
}

impl Sender for Pooled<'_> {
    fn slots(&self) -> usize {
        self.at.slots
    }

    #[inline]
    fn send(&mut self, slot: usize) -> Result<(), Broken> {
        let start = self.at.start(slot);
        self.lender
            .copy(self.region, start, self.at.size, self.at.frames)?;
        Ok(())
    }

    fn warm(&mut self) {
        self.lender.warm();
    }
}

/// Lent, and nobody writes.
struct Shared<'a> {
    at: Place,
    region: RegionId,
    lender: &'a mut Lender,
}

impl Sender for Shared<'_> {
    fn slots(&self) -> usize {
        self.at.slots
    }

    #[inline]
    fn send(&mut self, slot: usize) -> Result<(), Broken> {
        let start = self.at.start(slot);
        self.lender
            .share(self.region, start, self.at.size, self.at.frames)?;
        Ok(())
    }
}

/// A file that is mapped for each send. The loans are of one that is mapped already.
struct Mapped<'a> {
    shared: Shared<'a>,
    file: &'a File,
}

impl Sender for Mapped<'_> {
    fn slots(&self) -> usize {
        self.shared.slots()
    }

    #[inline]
    fn send(&mut self, slot: usize) -> Result<(), Broken> {
        let at = self.shared.at;
        let mapped = map(self.file, at.start(slot), at.size)?;
        black_box(mapped.as_ptr());
        self.shared.send(slot)
    }
}

/// Memory of a protector: lent or copied, and written in between.
struct Watched<'a> {
    case: &'static Case,
    at: Place,
    protected: &'a mut Protected,
    lender: &'a mut Lender,
}

impl Sender for Watched<'_> {
    fn slots(&self) -> usize {
        self.protected.buffers.len()
    }

    #[inline]
    fn rewrite(&mut self, slot: usize) -> Result<(), Broken> {
        let buffer = self.protected.buffers.get_mut(slot);
        let buffer = buffer.ok_or("no such buffer")?;
        let page = rustix::param::page_size();
        let by_value = match self.case.rewrite {
            Rewrite::ByValue => Some(self.at.size),
            Rewrite::OnePage => Some(self.at.size.min(page)),
            _ => None,
        };
        if let Some(len) = by_value {
            let bytes = buffer.bytes_mut(0..len)?;
            for byte in bytes.iter_mut().step_by(page) {
                *byte = black_box(byte.wrapping_add(1));
            }
            return Ok(());
        }
        let first = buffer.as_ptr()?;
        for offset in (0..self.at.size).step_by(page) {
            // SAFETY: the offset is less than the length of the buffer.
            let place = unsafe { first.byte_add(offset) };
            // SAFETY: the bytes are the buffer's, which is borrowed mutably, so there is no slice
            // of them; no loan of them is out, and what loans have would be elsewhere.
            unsafe { place.write_volatile(6) };
        }
        Ok(())
    }

    #[inline]
    fn send(&mut self, slot: usize) -> Result<(), Broken> {
        let buffer = self.protected.buffers.get(slot).ok_or("no such buffer")?;
        let (start, region) = (buffer.arena_offset(), self.protected.region);
        let Place { size, frames, .. } = self.at;
        match (self.case.way, self.case.rewrite) {
            (Way::Copy, _) => self.lender.copy(region, start, size, frames)?,
            (_, Rewrite::InFlight) => {
                self.lender.share_and_move(region, start, size, frames)?;
            }
            _ => self.lender.share(region, start, size, frames)?,
        }
        Ok(())
    }

    fn warm(&mut self) {
        self.lender.warm();
    }
}
