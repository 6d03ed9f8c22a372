//! All lanes at work: the first on the caller's thread, each other on a thread of its own.
//!
//! They work in rounds: all of them at the same moment of the clock, and when the last is ready the
//! device, the wire and the peer have their turn. So a virtual clock means the same to all, and it
//! does not matter which thread the system lets run first. In a program with a NIC that works by
//! itself each lane would loop on its own: it needs nothing from the others.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use pagewire::hal::Instant;

use super::input::Input;
use super::lane::{Done, For, Lane, Order, Owners, Stray};
use super::machine::Machine;
use crate::error::Failure;

/// The lanes, each where it works.
pub(super) struct Crew<'scope, M: Machine> {
    first: &'scope mut Lane<M>,
    others: Vec<Worker>,
    input: &'scope Input,
    owners: &'scope Owners,
    /// Frames that came to another lane than theirs, for the next round; a place for each lane.
    mail: Vec<Vec<Stray>>,
}

/// A lane on a thread of its own.
struct Worker {
    orders: Sender<Order>,
    done: Receiver<Result<Done, Failure>>,
}

/// What a round of all lanes has brought.
pub(super) struct Round {
    /// Whether anything moved.
    pub(super) worked: bool,
    /// When the first sender wants to be called again.
    pub(super) timer: Option<Instant>,
    /// Bytes that the peer has.
    pub(super) delivered: u64,
    /// The peer has everything, and every page has come back.
    pub(super) finished: bool,
}

impl<'scope, M: Machine> Crew<'scope, M> {
    /// Starts a thread for each lane but the first. They end when the crew is dropped.
    pub(super) fn start(
        scope: &'scope Scope<'scope, '_>,
        lanes: &'scope mut [Lane<M>],
        input: &'scope Input,
        owners: &'scope Owners,
    ) -> Result<Self, Failure> {
        let mail = lanes.iter().map(|_| Vec::new()).collect();
        let Some((first, others)) = lanes.split_first_mut() else {
            return Err(Failure::failed("there is no queue"));
        };
        let start = |lane| Worker::start(scope, lane, input, owners);
        Ok(Self {
            first,
            others: others.iter_mut().map(start).collect::<Result<_, _>>()?,
            input,
            owners,
            mail,
        })
    }

    /// One round of all lanes.
    pub(super) fn round(&mut self, now: Instant) -> Result<Round, Failure> {
        let mut mail = self.mail.iter_mut().map(std::mem::take);
        let mut order = || Order {
            now,
            mail: mail.next().unwrap_or_default(),
        };
        let first = order();
        for worker in &self.others {
            worker.begin(order())?;
        }
        let first = self.first.round(first, self.input, self.owners);
        // All are waited for, also if one has failed: nobody is left in the middle of a round.
        let others: Vec<_> = self.others.iter().map(Worker::end).collect();
        let mut round = Round {
            worked: false,
            timer: None,
            delivered: 0,
            finished: true,
        };
        for (lane, done) in std::iter::once(first).chain(others).enumerate() {
            self.add(&mut round, lane, done?);
        }
        Ok(round)
    }

    /// Adds what `lane` has done, and sorts the frames that came there for others.
    fn add(&mut self, round: &mut Round, lane: usize, done: Done) {
        round.worked |= done.worked;
        round.timer = [round.timer, done.timer].into_iter().flatten().min();
        round.delivered += done.delivered;
        round.finished &= done.finished;
        for (whose, stray) in done.strays {
            let places = self.mail.iter_mut().enumerate();
            let is_for = |to: usize| match whose {
                For::One(owner) => to == owner,
                // The lane itself has taken it.
                For::All => to != lane,
            };
            for (_, place) in places.filter(|(to, _)| is_for(*to)) {
                place.push(stray.clone());
            }
        }
    }
}

impl Worker {
    fn start<'scope, M: Machine>(
        scope: &'scope Scope<'scope, '_>,
        lane: &'scope mut Lane<M>,
        input: &'scope Input,
        owners: &'scope Owners,
    ) -> Result<Self, Failure> {
        let (orders, coming) = channel::<Order>();
        let (ready, done) = channel();
        let name = format!("queue {}", lane.index);
        let work = move || {
            for order in coming {
                if ready.send(lane.round(order, input, owners)).is_err() {
                    break;
                }
            }
        };
        std::thread::Builder::new()
            .name(name)
            .spawn_scoped(scope, work)
            .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
        Ok(Self { orders, done })
    }

    fn begin(&self, order: Order) -> Result<(), Failure> {
        self.orders.send(order).map_err(|_| ended())
    }

    fn end(&self) -> Result<Done, Failure> {
        self.done.recv().unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> Failure {
    Failure::failed("the thread of a queue has ended")
}
