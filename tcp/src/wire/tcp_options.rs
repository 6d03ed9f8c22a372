//! TCP options: maximum segment size, window scale, timestamps and SACK.

use super::{WireError, put, u16_at, u32_at};
use crate::seq::SeqNumber;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// Bytes of options that a header has room for: 15 words less the fixed 5.
const MAX_LEN: usize = 40;
/// The largest shift that there is (RFC 7323 section 2.3).
const MAX_WINDOW_SCALE: u8 = 14;

/// The timestamps option (RFC 7323 section 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timestamps {
    /// The sender's clock, TSval.
    pub value: u32,
    /// The value that the sender saw last, TSecr; only meaningful in a segment with ACK.
    pub echo: u32,
}

/// Up to four blocks of a SACK option (RFC 2018 section 3): each a first sequence number and the
/// one behind the last. They are as the peer wrote them: nothing says that they are in order, in
/// the window, or not empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SackBlocks {
    blocks: [(SeqNumber, SeqNumber); Self::MAX],
    count: u8,
}

impl SackBlocks {
    /// Blocks that an option has room for.
    pub const MAX: usize = 4;

    /// No block.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            blocks: [(SeqNumber(0), SeqNumber(0)); Self::MAX],
            count: 0,
        }
    }

    /// Adds a block from `start` up to, but not with, `end`. Returns whether there was room.
    pub fn push(&mut self, start: SeqNumber, end: SeqNumber) -> bool {
        let Some(slot) = self.blocks.get_mut(usize::from(self.count)) else {
            return false;
        };
        *slot = (start, end);
        self.count += 1;
        true
    }

    /// The blocks, in the order of the option.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[(SeqNumber, SeqNumber)] {
        self.blocks
            .get(..usize::from(self.count))
            .unwrap_or_default()
    }

    /// The blocks, in the order of the option.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (SeqNumber, SeqNumber)> + '_ {
        self.as_slice().iter().copied()
    }

    /// How many blocks there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The options of a TCP header that this crate knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpOptions {
    /// Largest payload in bytes that the sender wants to receive (RFC 9293 section 3.7.1). As
    /// received it is any number, zero too. Only meaningful with SYN.
    pub mss: Option<u16>,
    /// Shift of the sender's window field, at most 14. Only meaningful with SYN.
    pub window_scale: Option<u8>,
    /// Whether the sender understands SACK. Only meaningful with SYN.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// What the sender has received beyond its cumulative acknowledgment.
    pub sack: SackBlocks,
}

impl TcpOptions {
    /// Length in bytes as [`emit`](Self::emit) writes them, padding included: a multiple of 4, at
    /// most 40.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        match self.emitted_sack_blocks() {
            0 => self.len_without_sack(),
            blocks => self.len_without_sack() + 4 + 8 * blocks,
        }
    }

    /// Whether there is no option.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// At most 20.
    fn len_without_sack(&self) -> usize {
        let mut len = 0;
        if self.mss.is_some() {
            len += 4;
        }
        if self.window_scale.is_some() {
            len += 4;
        }
        if self.timestamps.is_some() {
            len += 12; // "SACK permitted" or two NOPs included
        } else if self.sack_permitted {
            len += 4;
        }
        len
    }

    /// As many blocks as there is room for: three beside timestamps (RFC 2018 section 3).
    fn emitted_sack_blocks(&self) -> usize {
        let room = MAX_LEN - self.len_without_sack();
        self.sack.len().min(room.saturating_sub(4) / 8)
    }

    /// Writes the options, each aligned to 4 bytes, and returns their length; `None` if `buffer`
    /// is too short. SACK blocks for which the header has no room are left out, the last ones
    /// first: the peer learns of them from a later segment. A window scale above 14 is written
    /// as 14.
    pub fn emit(&self, mut buffer: &mut [u8]) -> Option<usize> {
        let rest = &mut buffer;
        if let Some(mss) = self.mss {
            put(rest, &[MSS, 4])?;
            put(rest, &mss.to_be_bytes())?;
        }
        if let Some(shift) = self.window_scale {
            put(rest, &[NOP, WINDOW_SCALE, 3, shift.min(MAX_WINDOW_SCALE)])?;
        }
        match (self.sack_permitted, self.timestamps.is_some()) {
            (true, true) => put(rest, &[SACK_PERMITTED, 2])?,
            (true, false) => put(rest, &[NOP, NOP, SACK_PERMITTED, 2])?,
            (false, true) => put(rest, &[NOP, NOP])?,
            (false, false) => {}
        }
        if let Some(Timestamps { value, echo }) = self.timestamps {
            put(rest, &[TIMESTAMPS, 10])?;
            put(rest, &value.to_be_bytes())?;
            put(rest, &echo.to_be_bytes())?;
        }
        let blocks = self.emitted_sack_blocks();
        if blocks > 0 {
            put(rest, &[NOP, NOP, SACK, (2 + 8 * blocks) as u8])?;
            for (start, end) in self.sack.iter().take(blocks) {
                put(rest, &start.0.to_be_bytes())?;
                put(rest, &end.0.to_be_bytes())?;
            }
        }
        Some(self.len())
    }

    /// Reads the options of a header. An option that is not known, or is known and has another
    /// length than its own, is skipped (RFC 9293, MUST-6, asks so for unknown ones;
    /// Linux does so for both). Of an option that is there twice the last counts.
    ///
    /// # Errors
    /// [`WireError::OptionLength`]: no way to tell where the next option begins.
    #[inline]
    pub fn parse(options: &[u8]) -> Result<Self, WireError> {
        // What almost all segments have, as RFC 7323 appendix A lays it out.
        match options {
            [] => Ok(Self::default()),
            [NOP, NOP, TIMESTAMPS, 10, values @ ..] if values.len() == 8 => {
                let mut parsed = Self::default();
                parsed.read(TIMESTAMPS, values);
                Ok(parsed)
            }
            _ => Self::parse_each(options),
        }
    }

    fn parse_each(mut options: &[u8]) -> Result<Self, WireError> {
        let mut parsed = Self::default();
        loop {
            match options {
                [] | [END, ..] => return Ok(parsed),
                [NOP, rest @ ..] => options = rest,
                [_] => return Err(WireError::OptionLength),
                [kind, len, ..] => {
                    let len = usize::from(*len);
                    let data = options.get(2..len).ok_or(WireError::OptionLength)?;
                    parsed.read(*kind, data);
                    options = options.get(len..).unwrap_or_default();
                }
            }
        }
    }

    /// Takes note of one option; `data` is what follows kind and length.
    #[inline]
    fn read(&mut self, kind: u8, data: &[u8]) {
        match (kind, data.len()) {
            (MSS, 2) => self.mss = u16_at(data, 0),
            (WINDOW_SCALE, 1) => self.window_scale = data.first().copied().map(limit_shift),
            (SACK_PERMITTED, 0) => self.sack_permitted = true,
            (SACK, 8 | 16 | 24 | 32) => self.sack = read_blocks(data),
            (TIMESTAMPS, 8) => {
                if let (Some(value), Some(echo)) = (u32_at(data, 0), u32_at(data, 4)) {
                    self.timestamps = Some(Timestamps { value, echo });
                }
            }
            _ => {}
        }
    }
}

/// RFC 7323 section 2.3: a larger shift is an error to be logged, and 14 is used.
fn limit_shift(shift: u8) -> u8 {
    if shift > MAX_WINDOW_SCALE {
        log::debug!("the peer asks for a window scale of {shift}: 14 is used");
    }
    shift.min(MAX_WINDOW_SCALE)
}

fn read_blocks(data: &[u8]) -> SackBlocks {
    let mut blocks = SackBlocks::new();
    for block in data.chunks_exact(8) {
        if let (Some(start), Some(end)) = (u32_at(block, 0), u32_at(block, 4)) {
            blocks.push(SeqNumber(start), SeqNumber(end));
        }
    }
    blocks
}
