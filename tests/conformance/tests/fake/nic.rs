//! The driver of the fake.

use std::ptr::NonNull;
use std::sync::Arc;

use pagewire_hal::{
    Capabilities, Causes, DomainId, Instant, LinkState, MacAddress, Nic, NicError, Phase,
    PostError, QueueError, QueuePair, RxChecksum, RxCounters, RxFrame, RxQueue, Statistics, Token,
    TxFrame, TxQueue,
};

use super::{Fault, HeapMemory, MAC, PAIRS, Posted, RING, Shared, capabilities, lock};

pub(crate) struct FakeTx {
    world: Shared,
    index: usize,
    capabilities: Capabilities,
}

// SAFETY: a token comes back after the device has copied the frame's bytes, or in a reset.
// (With a fault it may not: the suite keeps the memory all the same, or leaks it.)
unsafe impl TxQueue for FakeTx {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn domain(&self) -> DomainId {
        lock(&self.world).domain
    }

    unsafe fn post(&mut self, frame: &TxFrame<'_>, token: Token) -> Result<(), PostError> {
        let mut world = lock(&self.world);
        let fault = world.fault;
        let queue = &mut world.queues[self.index];
        if queue.down {
            return Err(PostError::Down);
        }
        frame
            .check(&self.capabilities)
            .map_err(PostError::Refused)?;
        if let Some(first) = frame.first {
            let room = first.as_ptr().wrapping_sub(12);
            // SAFETY: the head room is ours until the frame has completed.
            unsafe { room.write_bytes(0xee, 12) };
        }
        if queue.used + frame.fragments.len() > RING {
            return Err(PostError::Full);
        }
        queue.used += frame.fragments.len();
        let mut fragments = frame.fragments.to_vec();
        if fault == Fault::NoHeadRoom {
            let first = &mut fragments[0];
            first.address = first.address.offset(12_u64.wrapping_neg());
        }
        if fault == Fault::EarlyTokens {
            queue.done.push_back((token, 0));
        }
        queue.posted.push_back(Posted {
            token,
            fragments,
            offload: frame.offload,
        });
        Ok(())
    }

    fn doorbell(&mut self) {
        let mut world = lock(&self.world);
        let queue = &mut world.queues[self.index];
        if queue.posted.is_empty() || queue.down {
            return;
        }
        let posted = std::mem::take(&mut queue.posted);
        queue.shown.extend(posted);
        world.doorbells += 1;
    }

    fn reclaim(&mut self, done: &mut impl FnMut(Token)) -> Result<usize, QueueError> {
        let mut world = lock(&self.world);
        let crossed = usize::from(world.fault == Fault::CrossedTokens);
        if world.hold {
            return Ok(0);
        }
        let queue = &mut world.queues[(self.index + crossed) % PAIRS];
        let mut count = 0;
        while let Some((token, fragments)) = queue.done.pop_front() {
            queue.used -= fragments;
            done(token);
            count += 1;
        }
        Ok(count)
    }

    fn has_room(&self, fragments: usize) -> bool {
        let world = lock(&self.world);
        let queue = &world.queues[self.index];
        !queue.down
            && fragments <= usize::from(self.capabilities.max_fragments)
            && queue.used + fragments <= RING
    }

    fn outstanding(&self) -> usize {
        let world = lock(&self.world);
        let queue = &world.queues[self.index];
        queue.posted.len() + queue.shown.len() + queue.done.len()
    }
}

pub(crate) struct FakeRx {
    world: Shared,
    index: usize,
    counters: RxCounters,
}

impl RxQueue for FakeRx {
    fn receive(
        &mut self,
        budget: usize,
        frame: &mut impl FnMut(RxFrame<'_>),
    ) -> Result<usize, QueueError> {
        if lock(&self.world).queues[self.index].down {
            return Err(QueueError::Down);
        }
        let mut count = 0;
        while count < budget {
            let next = lock(&self.world).queues[self.index].received.pop_front();
            let Some(mut bytes) = next else { break };
            let pointer = NonNull::from(bytes.as_mut_slice()).cast();
            self.counters.delivered += 1;
            // SAFETY: `bytes` lives until after the call, and nobody else has it.
            frame(unsafe { RxFrame::new(pointer, bytes.len(), RxChecksum::default()) });
            count += 1;
        }
        Ok(count)
    }

    fn counters(&self) -> RxCounters {
        self.counters
    }
}

pub(crate) struct FakeNic {
    world: Shared,
    capabilities: Capabilities,
    taken: [bool; PAIRS],
    quiet: bool,
}

impl FakeNic {
    pub(crate) fn new(world: &Shared) -> Self {
        Self {
            world: Arc::clone(world),
            capabilities: capabilities(),
            taken: [false; PAIRS],
            quiet: false,
        }
    }

    fn drain(
        &mut self,
        pairs: &mut [QueuePair<'_, FakeTx, FakeRx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        if !self.quiet {
            return Err(NicError::WrongPhase);
        }
        let all = self.taken.iter().filter(|taken| **taken).count();
        if pairs.len() < all {
            return Err(NicError::QueueMissing {
                index: pairs.len() as u16,
            });
        }
        for (position, pair) in pairs.iter().enumerate() {
            let mut world = lock(&self.world);
            let fault = world.fault;
            let queue = &mut world.queues[pair.tx.index];
            let posted = queue.posted.drain(..).map(|p| p.token);
            let shown = queue.shown.drain(..).map(|p| p.token);
            let mut tokens: Vec<_> = posted.chain(shown).collect();
            tokens.extend(queue.done.drain(..).map(|(token, _)| token));
            if fault == Fault::LostToken {
                tokens.pop();
            }
            queue.used = 0;
            drop(world);
            for token in tokens {
                released(position as u16, token);
            }
        }
        Ok(())
    }

    fn set_down(&mut self, down: bool) {
        let mut world = lock(&self.world);
        for queue in &mut world.queues {
            queue.down = down;
        }
    }
}

// SAFETY: a quiet device reads nothing, as `begin_reset` takes what it was shown away from it;
// tokens come back with the position of their queue, and nothing is swapped.
unsafe impl Nic for FakeNic {
    type Tx = FakeTx;
    type Rx = FakeRx;
    type Memory = HeapMemory;

    fn name(&self) -> &'static str {
        "fake"
    }
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }
    fn mac_address(&self) -> MacAddress {
        MacAddress(MAC)
    }
    fn domain(&self) -> DomainId {
        lock(&self.world).domain
    }
    fn allocate(&mut self, len: usize, _align: usize) -> Result<HeapMemory, NicError> {
        Ok(HeapMemory::new(len, self.domain()))
    }
    fn take_queues(&mut self, index: u16) -> Option<(FakeTx, FakeRx)> {
        let index = usize::from(index);
        let taken = self.taken.get_mut(index)?;
        if std::mem::replace(taken, true) {
            return None;
        }
        let tx = FakeTx {
            world: Arc::clone(&self.world),
            index,
            capabilities: capabilities(),
        };
        let counters = RxCounters::default();
        Some((
            tx,
            FakeRx {
                world: Arc::clone(&self.world),
                index,
                counters,
            },
        ))
    }
    fn link(&mut self) -> LinkState {
        let up = lock(&self.world).link;
        LinkState {
            up,
            speed_mbps: 1000,
            full_duplex: true,
        }
    }
    fn statistics(&mut self) -> Statistics {
        lock(&self.world).statistics
    }
    fn enable_interrupts(&mut self) -> Result<u16, NicError> {
        Err(NicError::NotOffered { what: "MSI-X" })
    }
    fn take_interrupts(&mut self) -> Causes {
        Causes::empty()
    }
    fn poll(&mut self, _now: Instant) -> Result<Phase, NicError> {
        let link = self.link();
        Ok(if self.quiet {
            Phase::Quiet
        } else {
            Phase::Running(link)
        })
    }
    fn begin_reset(&mut self, _now: Instant) {
        let mut world = lock(&self.world);
        for queue in &mut world.queues {
            // Shown no more, and not lost: `drain` hands them back.
            let shown = std::mem::take(&mut queue.shown);
            queue.posted.extend(shown);
            queue.down = true;
        }
        drop(world);
        self.quiet = true;
    }
    fn restart(
        &mut self,
        queues: &mut [QueuePair<'_, FakeTx, FakeRx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        self.drain(queues, released)?;
        self.set_down(false);
        self.quiet = false;
        Ok(())
    }
    fn release(
        &mut self,
        queues: &mut [QueuePair<'_, FakeTx, FakeRx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        self.drain(queues, released)
    }
}
