//! The driver's side of the machine: a queue that completes any frame at any time, and a reset in
//! its phases.

use pagewire::hal::{
    Capabilities, Causes, DomainId, Instant, LinkState, MacAddress, Nic, NicError, Phase,
    PlatformError, PostError, QueueError, QueuePair, RxCounters, RxFrame, RxQueue, Statistics,
    Token, TxFrame, TxQueue,
};

use crate::machine::{Fault, GONE, Held, Machine, PoolMemory, Power, Stage};

/// The transmit queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) machine: Machine,
    capabilities: Capabilities,
}

// SAFETY: a token is handed back when its frame has stage `Done`, or by a restart when the device
// is quiet, unless a test of the explorer asks for a fault: then the device reads through its map
// only, which refuses what is not there any more.
unsafe impl TxQueue for Queue {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn domain(&self) -> DomainId {
        self.machine.domain()
    }

    unsafe fn post(&mut self, frame: &TxFrame<'_>, token: Token) -> Result<(), PostError> {
        let mut state = self.machine.lock();
        if state.power != Power::Running {
            return Err(PostError::Down);
        }
        frame
            .check(&self.capabilities)
            .map_err(PostError::Refused)?;
        if state.posted.len() >= state.capacity {
            return Err(PostError::Full);
        }
        let bytes = state.read(frame.fragments).unwrap_or_else(|| {
            let what = format!("{token:?} names memory that is not mapped");
            state.violations.push(what);
            Vec::new()
        });
        state.log.push(bytes.clone());
        state.posted.push(Held {
            token,
            fragments: frame.fragments.to_vec(),
            bytes,
            stage: Stage::Posted,
        });
        Ok(())
    }

    fn doorbell(&mut self) {
        let mut state = self.machine.lock();
        if state.power == Power::Running {
            for held in state.posted.iter_mut() {
                if held.stage == Stage::Posted {
                    held.stage = Stage::Rung;
                }
            }
        }
    }

    fn reclaim(&mut self, done: &mut impl FnMut(Token)) -> Result<usize, QueueError> {
        let mut count = 0;
        loop {
            let mut state = self.machine.lock();
            if !matches!(state.power, Power::Running | Power::Stopping) {
                return Err(QueueError::Down);
            }
            let Some(token) = state.next_done() else {
                return Ok(count);
            };
            state.reclaimed += 1;
            let twice = state.fault == Fault::HandsBackTwice && state.reclaimed.is_multiple_of(2);
            drop(state);
            // Takes note of it only after the call: a callback that unwinds leaves it there.
            done(token);
            if twice {
                done(token);
            }
            let mut state = self.machine.lock();
            state.done.pop_front();
            if state.fault != Fault::HandsBackEarly {
                state.take(token);
            } else if let Some(held) = state.posted.iter_mut().find(|h| h.token == token) {
                // The device goes on reading, and nobody hands it back once more.
                held.token = GONE;
            }
            count += 1;
        }
    }

    fn has_room(&self, fragments: usize) -> bool {
        let state = self.machine.lock();
        let fits = fragments <= usize::from(self.capabilities.max_fragments);
        state.power == Power::Running && fits && state.posted.len() < state.capacity
    }

    fn outstanding(&self) -> usize {
        self.machine.lock().posted.len()
    }
}

/// Nothing arrives here.
#[derive(Debug)]
pub(crate) struct Receive;

impl RxQueue for Receive {
    fn receive(
        &mut self,
        _budget: usize,
        _frame: &mut impl FnMut(RxFrame<'_>),
    ) -> Result<usize, QueueError> {
        Ok(0)
    }

    fn counters(&self) -> RxCounters {
        RxCounters::default()
    }
}

/// The control part.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) machine: Machine,
    capabilities: Capabilities,
}

impl Device {
    /// The device of a machine, and its queue.
    pub(crate) fn new(machine: &Machine, max_fragments: u16) -> (Self, Queue) {
        let mut capabilities = Capabilities::minimal();
        capabilities.max_fragments = max_fragments;
        capabilities.dma_address_bits = 64;
        let machine = machine.clone();
        let queue = Queue {
            machine: machine.clone(),
            capabilities,
        };
        let device = Self {
            machine,
            capabilities,
        };
        (device, queue)
    }

    fn hand_back(&mut self, released: &mut dyn FnMut(u16, Token)) -> Result<(), NicError> {
        let mut state = self.machine.lock();
        let quiet = state.power == Power::Quiet;
        let taken_for_quiet = state.fault == Fault::QuietTooEarly && state.power == Power::Stopping;
        if !quiet && !taken_for_quiet {
            return Err(NicError::WrongPhase);
        }
        if !quiet {
            // The fault: the device is taken for quiet, and reads once more afterwards.
            let tokens: Vec<_> = state.posted.iter().map(|held| held.token).collect();
            drop(state);
            tokens.into_iter().for_each(|token| released(0, token));
            return Err(NicError::NotQuiet);
        }
        let forgets = state.fault == Fault::RestartForgetsDone;
        let posted = std::mem::take(&mut state.posted);
        let mut tokens: Vec<_> = state.done.drain(..).collect();
        if forgets {
            tokens.clear();
        }
        tokens.extend(
            posted
                .iter()
                .filter(|held| held.stage != Stage::Done)
                .map(|held| held.token),
        );
        drop(state);
        tokens.into_iter().for_each(|token| released(0, token));
        Ok(())
    }
}

// SAFETY: tokens are handed back in phase `Quiet` alone (but for the faults that tests of the
// explorer ask for, which the map of the device survives), with the place of the one queue, which
// nobody swaps; the domain and the memory are the machine's.
unsafe impl Nic for Device {
    type Tx = Queue;
    type Rx = Receive;
    type Memory = PoolMemory;

    fn name(&self) -> &'static str {
        "explored"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn mac_address(&self) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, 1])
    }

    fn domain(&self) -> DomainId {
        self.machine.domain()
    }

    fn allocate(&mut self, len: usize, align: usize) -> Result<PoolMemory, NicError> {
        self.machine
            .pool_memory(len, align)
            .ok_or_else(|| PlatformError::OutOfMemory.into())
    }

    fn take_queues(&mut self, _index: u16) -> Option<(Queue, Receive)> {
        None
    }

    fn link(&mut self) -> LinkState {
        LinkState::default()
    }

    fn statistics(&mut self) -> Statistics {
        Statistics::default()
    }

    fn enable_interrupts(&mut self) -> Result<u16, NicError> {
        Ok(0)
    }

    fn take_interrupts(&mut self) -> Causes {
        Causes::empty()
    }

    fn poll(&mut self, _now: Instant) -> Result<Phase, NicError> {
        match self.machine.lock().power {
            Power::Running => Ok(Phase::Running(LinkState::default())),
            Power::Stopping => Ok(Phase::Stopping),
            Power::Quiet => Ok(Phase::Quiet),
            Power::Failed => Err(NicError::NotQuiet),
        }
    }

    fn begin_reset(&mut self, _now: Instant) {
        let mut state = self.machine.lock();
        if state.power == Power::Running {
            state.power = Power::Stopping;
        }
    }

    fn restart(
        &mut self,
        _queues: &mut [QueuePair<'_, Queue, Receive>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        self.hand_back(released)?;
        let mut state = self.machine.lock();
        if !state.initialises {
            return Err(NicError::Timeout {
                what: "initialisation",
                after: std::time::Duration::from_millis(1),
            });
        }
        state.power = Power::Running;
        Ok(())
    }

    fn release(
        &mut self,
        _queues: &mut [QueuePair<'_, Queue, Receive>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        self.hand_back(released)
    }
}
