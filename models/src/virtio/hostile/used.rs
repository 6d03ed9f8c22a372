//! Lies in what is marked as used, in the header of received frames, in answers to commands.

use super::liar::{Liar, Moment, UsedKind};
use super::lies::Lie;
use crate::virtio::bits::{flag, header};
use crate::virtio::ring::{Shown, Used};

/// What is known of a queue whose buffers are marked as used.
pub(in super::super) struct UsedContext {
    pub(in super::super) packed: bool,
    pub(in super::super) in_order: bool,
    pub(in super::super) size: u16,
    /// Ids of the other buffers that the device has.
    pub(in super::super) others: Vec<u16>,
}

/// What happens to the answer of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Answer {
    Given(u8),
    /// The command is used without one.
    Missing,
    /// The command is never used.
    Lost,
}

impl Liar {
    /// What the driver is told of `used`, and how far from its place in the ring.
    pub(in super::super) fn used(
        &mut self,
        used: &[Used],
        context: &UsedContext,
    ) -> (Vec<Shown>, i32) {
        let mut shown: Vec<Shown> = used.iter().copied().map(Shown::from).collect();
        let kind = UsedKind {
            packed: context.packed,
            in_order: context.in_order,
            written: used.iter().any(|entry| entry.room > 0),
        };
        let Some(lie) = self.turn(Moment::Used(kind)) else {
            return (shown, 0);
        };
        let place = self.source.choose(shown.len());
        let Some(honest) = used.get(place) else {
            return (shown, 0);
        };
        let mut skew = 0;
        match lie {
            Lie::IndexAhead => skew = self.distance(context.size),
            Lie::IndexBack => skew = -self.distance(context.size),
            Lie::UsedTwice => {
                let more = [1, 2, usize::from(context.size), 300];
                let times = more.get(self.source.choose(4)).copied().unwrap_or(1);
                let again = shown.get(place).copied();
                shown.extend(again.into_iter().cycle().take(times));
            }
            Lie::UsedLost => {
                shown.remove(place);
            }
            lie => match self.entry(lie, honest, context) {
                Some(entry) => {
                    if let Some(target) = shown.get_mut(place) {
                        *target = entry;
                    }
                }
                None => return (shown, 0),
            },
        }
        self.told.count(lie);
        (shown, skew)
    }

    /// One at least: a little, half a ring, a ring and more, or half of what 16 bits hold.
    fn distance(&mut self, size: u16) -> i32 {
        let size = i32::from(size);
        match self.source.choose(5) {
            0 => 1,
            1 => 2,
            2 => 1 + size / 2,
            3 => size + 1,
            _ => 0x8000,
        }
    }

    /// An entry in place of the honest one; `None` if there is nothing to lie about.
    fn entry(&mut self, lie: Lie, honest: &Used, context: &UsedContext) -> Option<Shown> {
        let mut entry = Shown::from(*honest);
        let size = u32::from(context.size);
        match lie {
            Lie::IdOutOfRange => {
                let high = 0x1_0000 | entry.id;
                let random = self.source.word().max(size);
                entry.id = self.source.pick(&[size, 0xffff, high, u32::MAX, random]);
                if context.packed {
                    entry.id = (entry.id & 0xffff).max(size);
                }
            }
            Lie::IdNotOutstanding => {
                let start = self.source.half();
                let free = (0..context.size)
                    .map(|step| start.wrapping_add(step) % context.size)
                    .find(|id| *id != honest.id && !context.others.contains(id))?;
                entry.id = free.into();
            }
            Lie::OrderBroken => {
                let choice = self.source.choose(context.others.len());
                let other = context.others.get(choice).copied();
                let next = u32::from(honest.id.wrapping_add(1)).checked_rem(size);
                entry.id = other.map(u32::from).or(next)?;
            }
            Lie::LengthTooLong => {
                let most = honest.room;
                let random = self.source.word().max(1);
                let more = self.source.pick(&[1, 4096, 0x1_0000, u32::MAX, random]);
                entry.len = most.saturating_add(more);
            }
            Lie::LengthTooShort => {
                let short = self.source.word().checked_rem(honest.len)?;
                let len = header::LEN as u32;
                let value = self.source.pick(&[0, 1, len - 1, len, u32::MAX, short]);
                entry.len = value.min(honest.len - 1);
            }
            Lie::FlagsFlipped => {
                let random = self.source.half();
                let both = flag::AVAIL | flag::USED;
                let values = [flag::AVAIL, flag::USED, both, flag::WRITE, random];
                let choice = self.source.choose(values.len());
                entry.flipped = values.get(choice).copied().unwrap_or(both);
            }
            _ => return None,
        }
        Some(entry)
    }

    /// Spoils the header of a received frame of `len` bytes in `buffers` buffers of a queue of
    /// `size`.
    pub(in super::super) fn header(&mut self, raw: &mut [u8], len: usize, buffers: u16, size: u16) {
        let Some(lie) = self.turn(Moment::Header) else {
            return;
        };
        let len = len.min(usize::from(u16::MAX)) as u16;
        let random = self.source.half();
        let source = &mut self.source;
        let mut pick = |values: &[u32]| source.pick(values) as u16;
        // flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers.
        match lie {
            Lie::BuffersZero => put_half(raw, 10, 0),
            Lie::BuffersMany => {
                let values = [buffers.wrapping_add(1), size, size.wrapping_add(1), 0xffff];
                put_half(raw, 10, pick(&values.map(u32::from)));
            }
            Lie::GsoTypeUnknown => {
                // HOST_UFO, HOST_USO, ECN alone and with TCP: none is offered.
                let kind = pick(&[2, 3, 5, 0x7f, 0x80, 0x81, u32::from(random)]) as u8;
                put_byte(raw, 1, kind.max(1));
                put_half(raw, 4, 1448);
            }
            Lie::GsoSizeNonsense => {
                put_byte(raw, 0, header::NEEDS_CSUM);
                put_byte(raw, 1, pick(&[1, 4]) as u8);
                put_half(raw, 4, pick(&[0, 1, u32::from(len), 0xffff]));
            }
            Lie::ChecksumPlace => {
                put_byte(raw, 0, header::NEEDS_CSUM);
                let start = [len, len.saturating_sub(1), 0xffff, 0, random];
                put_half(raw, 6, pick(&start.map(u32::from)));
                put_half(raw, 8, pick(&[0, 16, u32::from(len), 0xfffe, 0xffff]));
            }
            Lie::HeaderLength => {
                let value = [0, 1, len.wrapping_add(1), 0xffff, random];
                put_half(raw, 2, pick(&value.map(u32::from)));
            }
            Lie::HeaderFlags => put_byte(raw, 0, pick(&[3, 4, 7, 8, 0xf8, 0xff]) as u8),
            _ => {
                let count = 1 + source.choose(4);
                for _ in 0..count {
                    let at = source.choose(raw.len());
                    let value = source.byte();
                    put_byte(raw, at, value);
                }
            }
        }
    }

    /// What becomes of the answer to a command.
    pub(in super::super) fn answer(&mut self, answer: u8) -> Answer {
        match self.turn(Moment::Command) {
            Some(Lie::AnswerMissing) => Answer::Missing,
            Some(Lie::CommandLost) => Answer::Lost,
            Some(Lie::AnswerGarbage) => Answer::Given(self.source.byte().max(1)),
            _ => Answer::Given(answer),
        }
    }
}

fn put_byte(raw: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = raw.get_mut(at) {
        *byte = value;
    }
}

fn put_half(raw: &mut [u8], at: usize, value: u16) {
    let target = raw.get_mut(at..).and_then(|rest| rest.first_chunk_mut());
    if let Some(target) = target {
        *target = value.to_le_bytes();
    }
}
