//! Frames for a queue that is alone on a thread, without the books of the session.

use std::ptr::NonNull;

use pagewire_hal::{
    DmaBuffer, DmaMemory, Fragment, Offload, PostError, Region, Token, TxFrame, TxQueue,
};

use super::{SHORTEST, Session};
use crate::Bench;
use crate::verdict::Verdict;

/// Frames of one fragment each, in memory of their own. Whoever has posted some and has not got
/// their tokens back forgets the value instead of dropping it.
pub(crate) struct Solo<M: DmaMemory> {
    frames: Vec<Vec<u8>>,
    buffers: Vec<DmaBuffer<M>>,
    head_room: usize,
    mark: u8,
}

impl<B: Bench> Session<'_, B> {
    /// `count` frames of the shortest length; `mark`, not zero, is their first byte behind the
    /// Ethernet header.
    pub(crate) fn solo(&mut self, count: usize, mark: u8) -> Verdict<Solo<B::Memory>> {
        let head_room = usize::from(self.capabilities.head_room);
        let mut frames = Vec::new();
        let mut buffers = Vec::new();
        for _ in 0..count {
            let mut frame = self.header(SHORTEST);
            if let Some(byte) = frame.get_mut(super::ETHERNET) {
                *byte = mark;
            }
            buffers.push(self.buffer_with(&frame, head_room)?);
            frames.push(frame);
        }
        Ok(Solo {
            frames,
            buffers,
            head_room,
            mark,
        })
    }
}

impl<M: DmaMemory + 'static> Solo<M> {
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(crate) fn mark(&self) -> u8 {
        self.mark
    }

    /// The bytes of the frames, in order.
    pub(crate) fn frames(&self) -> std::slice::Iter<'_, Vec<u8>> {
        self.frames.iter()
    }

    /// Posts frame `index`, its token made of the mark and that; `None` if there is none.
    pub(crate) fn post<Q: TxQueue>(
        &self,
        queue: &mut Q,
        index: usize,
    ) -> Option<Result<(), PostError>> {
        let buffer = self.buffers.get(index)?;
        let len = self.frames.get(index)?.len();
        let run = buffer.translation().runs(self.head_room, len).next()?;
        let fragment = Fragment {
            address: run.address,
            len: run.len as u32,
        };
        let first = NonNull::new(Region::base(buffer).as_ptr().wrapping_add(self.head_room));
        let frame = TxFrame {
            fragments: &[fragment],
            offload: Offload::NONE,
            first: first.filter(|_| self.head_room > 0),
        };
        let token = Token(u32::from(self.mark) << 24 | index as u32);
        // SAFETY: the fragment and the head room lie in `buffer`, which nobody writes while
        // `self` exists, and which is forgotten if a token has not come back.
        Some(unsafe { queue.post(&frame, token) })
    }
}
