//! The driver of the fake.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use pagewire_hal::{
    Capabilities, Causes, DomainId, Instant, LinkState, MacAddress, Nic, NicError, Phase,
    PostError, QueueError, QueuePair, RxChecksum, RxCounters, RxFrame, RxQueue, Statistics, Token,
    TxFrame, TxQueue,
};

use super::{Fault, HeapMemory, MAC, PAIRS, Posted, Shared, hash, lock};

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
        let (fault, ring) = (world.fault, world.shape.ring);
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
        if queue.used + frame.fragments.len() > ring {
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
        let late = world.fault == Fault::ConsumedLate;
        if world.hold || world.gone {
            return Ok(0);
        }
        let queue = &mut world.queues[(self.index + crossed) % PAIRS];
        let mut count = 0;
        while let Some((token, fragments)) = queue.done.front().copied() {
            if late {
                done(token);
            }
            queue.done.pop_front();
            queue.used -= fragments;
            if !late {
                done(token);
            }
            count += 1;
        }
        Ok(count)
    }

    fn has_room(&self, fragments: usize) -> bool {
        let world = lock(&self.world);
        let queue = &world.queues[self.index];
        !queue.down
            && fragments <= usize::from(self.capabilities.max_fragments)
            && queue.used + fragments <= world.shape.ring
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
    pub(crate) counters: RxCounters,
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
        let fault = lock(&self.world).fault;
        let capabilities = lock(&self.world).shape.capabilities;
        let hashes = capabilities.rx_hash || fault == Fault::HashUnsaid;
        let mut ahead = VecDeque::new();
        if fault == Fault::ReceivesAhead {
            ahead = std::mem::take(&mut lock(&self.world).queues[self.index].received);
        }
        let mut count = 0;
        loop {
            if count >= budget && fault != Fault::BudgetLate {
                break;
            }
            let mut world = lock(&self.world);
            let next = ahead
                .pop_front()
                .or_else(|| world.queues[self.index].received.pop_front());
            let Some(mut bytes) = next else { break };
            world.kept = 0;
            drop(world);
            if count >= budget {
                break;
            }
            let hash = hash::of(&bytes, fault).filter(|_| hashes);
            let pointer = NonNull::from(bytes.as_mut_slice()).cast();
            self.counters.delivered += 1;
            // SAFETY: `bytes` lives until after the call, and nobody else has it.
            let received = unsafe { RxFrame::new(pointer, bytes.len(), RxChecksum::default()) };
            frame(received.with_hash(hash));
            count += 1;
        }
        if !ahead.is_empty() {
            lock(&self.world).queues[self.index].received = ahead;
        }
        Ok(count)
    }

    fn counters(&self) -> RxCounters {
        self.counters
    }
}

/// Where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Running,
    Stopping(Instant),
    Quiet,
    Failed,
}

/// How long frames may stand still, and the device may take to stop.
const LIMIT: Duration = Duration::from_millis(500);

type Pairs<'a, 'q> = &'a mut [QueuePair<'q, FakeTx, FakeRx>];

pub(crate) struct FakeNic {
    world: Shared,
    capabilities: Capabilities,
    taken: [bool; PAIRS],
    state: State,
    /// When this many frames had been sent, while there was work.
    watch: Option<(Instant, u64)>,
    polls: u32,
    counted: Statistics,
    /// Tokens that `release` has handed back.
    again: Vec<Token>,
}

impl FakeNic {
    pub(crate) fn new(world: &Shared) -> Self {
        let mut capabilities = lock(world).shape.capabilities;
        if lock(world).fault == Fault::WrongLimit {
            capabilities.max_frame_len += 4;
        }
        capabilities.rx_hash &= lock(world).fault != Fault::HashUnsaid;
        Self {
            world: Arc::clone(world),
            capabilities,
            taken: [false; PAIRS],
            state: State::Running,
            watch: None,
            polls: 0,
            counted: Statistics::default(),
            again: Vec::new(),
        }
    }

    fn fault(&self) -> Fault {
        lock(&self.world).fault
    }

    /// Adds what the device has counted, which reading clears.
    fn collect(&mut self) {
        let mut world = lock(&self.world);
        if world.gone {
            return;
        }
        let new = std::mem::take(&mut world.statistics);
        let all = &mut self.counted;
        all.tx_frames += new.tx_frames;
        all.tx_bytes += new.tx_bytes;
        all.rx_frames += new.rx_frames;
        all.rx_bytes += new.rx_bytes;
        all.rx_missed += new.rx_missed;
        all.rx_length_errors += new.rx_length_errors;
    }

    fn check(&self, pairs: &[QueuePair<'_, FakeTx, FakeRx>]) -> Result<(), NicError> {
        if self.state != State::Quiet {
            return Err(NicError::WrongPhase);
        }
        let ours = |world: &Shared| Arc::ptr_eq(world, &self.world);
        let all_ours = pairs
            .iter()
            .all(|pair| ours(&pair.tx.world) && ours(&pair.rx.world));
        if !all_ours && self.fault() != Fault::AnyQueues {
            return Err(NicError::Config {
                what: "queues of another device",
            });
        }
        let all = self.taken.iter().filter(|taken| **taken).count();
        if pairs.len() < all {
            return Err(NicError::QueueMissing {
                index: pairs.len() as u16,
            });
        }
        Ok(())
    }

    fn drain(&mut self, pairs: Pairs<'_, '_>, released: &mut dyn FnMut(u16, Token)) {
        let fault = self.fault();
        for (position, pair) in pairs.iter_mut().enumerate() {
            // One at a time, as `released` may unwind.
            loop {
                let mut world = lock(&pair.tx.world);
                let queue = &mut world.queues[pair.tx.index];
                let posted = queue.posted.pop_front().map(|posted| posted.token);
                let shown = || queue.shown.pop_front().map(|posted| posted.token);
                let token = posted.or_else(shown);
                let token = token.or_else(|| queue.done.pop_front().map(|(token, _)| token));
                let is_last = queue.posted.is_empty() && queue.shown.is_empty();
                queue.used = 0;
                drop(world);
                let Some(token) = token else { break };
                self.again.push(token);
                if fault == Fault::LostToken && is_last {
                    break;
                }
                let by_number = fault == Fault::TokensByNumber;
                let told = if by_number { pair.tx.index } else { position };
                released(told as u16, token);
            }
            if fault == Fault::LostToken {
                lock(&pair.tx.world).queues[pair.tx.index].done.clear();
            }
            if fault == Fault::DeliveredLost {
                pair.rx.counters = RxCounters::default();
            }
        }
    }

    fn set_down(&mut self, down: bool) {
        let mut world = lock(&self.world);
        let takes_all = world.fault != Fault::UntakenDown;
        for (queue, taken) in world.queues.iter_mut().zip(self.taken) {
            if taken || takes_all {
                queue.down = down;
            }
        }
    }

    fn is_hung(&mut self, now: Instant) -> bool {
        let world = lock(&self.world);
        let watched = if world.fault == Fault::FirstWatched {
            1
        } else {
            PAIRS
        };
        let mut queues = world.queues.iter().take(watched);
        let has_work = queues.any(|queue| !queue.shown.is_empty());
        if !has_work || world.fault == Fault::NeverHung {
            self.watch = None;
            return false;
        }
        let sent = match world.fault {
            Fault::HungInStep => world.sent % world.shape.ring as u64,
            _ => world.sent,
        };
        match self.watch {
            Some((since, before)) if before == sent => {
                self.polls += 1;
                let by_count = world.fault == Fault::HungByCount && self.polls > 4;
                by_count || now.saturating_since(since) >= LIMIT
            }
            _ => {
                self.watch = Some((now, sent));
                self.polls = 0;
                false
            }
        }
    }
}

// SAFETY: a quiet device reads nothing, as `begin_reset` takes what it was shown away from it;
// tokens come back with the position of their queue, and nothing is swapped. Queues of another
// device are refused. (With a fault it may not be so: the suite leaks the memory then.)
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
        assert!(len < 1 << 18, "the suite asked for {len} bytes");
        Ok(HeapMemory::new(len, self.domain()))
    }
    fn take_queues(&mut self, index: u16) -> Option<(FakeTx, FakeRx)> {
        if index >= self.capabilities.queue_pairs {
            return None;
        }
        let index = usize::from(index);
        let taken = self.taken.get_mut(index)?;
        if std::mem::replace(taken, true) {
            return None;
        }
        let tx = FakeTx {
            world: Arc::clone(&self.world),
            index,
            capabilities: self.capabilities,
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
        let world = lock(&self.world);
        let up = world.link && !world.gone;
        let says = up || world.fault == Fault::SpeedWhileDown;
        LinkState {
            up,
            speed_mbps: if says { 1000 } else { 0 },
            full_duplex: says,
        }
    }
    fn statistics(&mut self) -> Statistics {
        self.collect();
        self.counted
    }
    fn enable_interrupts(&mut self) -> Result<u16, NicError> {
        lock(&self.world).interrupts = true;
        Ok(1)
    }
    fn take_interrupts(&mut self) -> Causes {
        let mut world = lock(&self.world);
        let mut causes = std::mem::take(&mut world.causes);
        if world.fault == Fault::OverrunHidesLink && causes.contains(Causes::OVERRUN) {
            causes.remove(Causes::LINK);
        }
        causes
    }
    fn poll(&mut self, now: Instant) -> Result<Phase, NicError> {
        let (fault, gone, stuck) = {
            let world = lock(&self.world);
            (world.fault, world.gone, world.stuck)
        };
        let has_failed = self.state == State::Failed;
        if gone && (!has_failed || fault == Fault::RemovedForEver) {
            self.state = State::Failed;
            return Err(NicError::Removed);
        }
        match self.state {
            State::Failed => Ok(Phase::Failed),
            State::Quiet => Ok(Phase::Quiet),
            State::Stopping(since) if stuck && fault != Fault::QuietTooEarly => {
                if now.saturating_since(since) < LIMIT {
                    return Ok(Phase::Stopping);
                }
                self.state = State::Failed;
                Err(NicError::NotQuiet)
            }
            State::Stopping(_) => {
                self.state = State::Quiet;
                Ok(Phase::Quiet)
            }
            State::Running => {
                if fault == Fault::PollEats {
                    lock(&self.world).statistics.tx_frames = 0;
                }
                if self.is_hung(now) {
                    return Ok(Phase::Hung);
                }
                Ok(Phase::Running(self.link()))
            }
        }
    }
    fn begin_reset(&mut self, now: Instant) {
        if self.state != State::Running {
            return;
        }
        if self.fault() != Fault::CountsLost {
            self.collect();
        }
        let mut world = lock(&self.world);
        for queue in &mut world.queues {
            // Shown no more, and not lost: `drain` hands them back.
            let shown = std::mem::take(&mut queue.shown);
            queue.posted.extend(shown);
            queue.down = true;
        }
        world.statistics = Statistics::default();
        world.before_reset = world.request.take();
        if world.fault == Fault::InterruptsLost {
            world.interrupts = false;
        }
        drop(world);
        self.state = State::Stopping(now);
    }
    fn restart(
        &mut self,
        queues: Pairs<'_, '_>,
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        self.check(queues)?;
        if self.fault() == Fault::TokensAgain {
            for token in std::mem::take(&mut self.again) {
                released(0, token);
            }
        }
        self.drain(queues, released);
        self.again.clear();
        self.set_down(false);
        if self.fault() != Fault::HungAfterReset {
            self.watch = None;
        }
        self.state = State::Running;
        Ok(())
    }
    fn release(
        &mut self,
        queues: Pairs<'_, '_>,
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        self.check(queues)?;
        self.drain(queues, released);
        if self.fault() == Fault::FailedAfterRelease {
            self.state = State::Failed;
        }
        Ok(())
    }
}
