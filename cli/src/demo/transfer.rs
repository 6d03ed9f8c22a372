//! The loop of the demo: feed, send, let the device work, let the peer work; with a stopwatch.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as RealInstant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pagewire::hal::{Instant, Nic, Phase, RxQueue};
use pagewire::tcp::{ConnectionId, Slice, State};
use sha2::{Digest, Sha256};

use super::args::Args;
use super::input::Input;
use super::machine::Machine;
use super::report::Report;
use super::world::{REMOTE, World};
use crate::device::DeviceName;
use crate::error::Failure;

/// Bytes offered to the sender in one call.
const OFFER: u64 = 256 << 10;
/// Slices offered in one call.
const SLICES: usize = 512;
/// Received frames handled in one round.
const RECEIVE_BUDGET: usize = 256;
/// What a round takes on the virtual clock.
const ROUND: Duration = Duration::from_micros(10);
/// Nothing has moved for so long, on the clock of the demo: it is stuck.
const STUCK: Duration = Duration::from_secs(120);
/// How long a NIC may make no progress, if it goes on by itself afterwards.
const HUNG: Duration = Duration::from_secs(10);
/// The model's own delays (late write-backs) are shorter than this.
const DEVICE_DELAY: Duration = Duration::from_millis(1);
/// After so many rounds in which nothing moved, the model holds nothing back any more: time may
/// leap to the next timer. Without it a minute of silence costs 60,000 rounds.
const QUIET_ROUNDS: u32 = 64;
/// How often device and interrupt key are looked at.
const WATCH: u32 = 1024;

/// Where the CPU time of this thread goes: what other programs take does not count.
#[derive(Default)]
pub(super) struct Stopwatch {
    pub(super) sender: Duration,
    pub(super) model: Duration,
    pub(super) peer: Duration,
    pub(super) hash: Duration,
    lap: Duration,
}

impl Stopwatch {
    /// CPU time since the last lap.
    fn lap(&mut self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let now = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
        now.saturating_sub(std::mem::replace(&mut self.lap, now))
    }
}

/// One transfer and what is known of it so far.
pub(crate) struct Transfer<'a> {
    pub(super) args: &'a Args,
    pub(super) device: &'a DeviceName,
    pub(super) input: &'a Input,
    stop: &'a AtomicBool,
    offered: u64,
    accepted: u64,
    delivered: u64,
    pub(super) hash: Sha256,
    closed: bool,
    /// Since when the NIC has made no progress.
    hung_since: Option<Instant>,
    pub(super) watch: Stopwatch,
    progress: ProgressBar,
    scratch: Vec<u8>,
    slices: Vec<Slice>,
}

impl<'a> Transfer<'a> {
    pub(crate) fn new(
        args: &'a Args,
        device: &'a DeviceName,
        input: &'a Input,
        stop: &'a AtomicBool,
    ) -> Self {
        Self {
            args,
            device,
            input,
            stop,
            offered: 0,
            accepted: 0,
            delivered: 0,
            hash: Sha256::new(),
            closed: false,
            hung_since: None,
            watch: Stopwatch::default(),
            progress: progress_bar(input.len),
            scratch: Vec::new(),
            slices: Vec::with_capacity(SLICES),
        }
    }

    /// Sends everything and reports.
    pub(crate) fn run<M: Machine>(mut self, world: &mut World<M>) -> Result<Report, Failure> {
        let longest = world.nic.capabilities().max_receive_len();
        self.scratch.resize(longest as usize, 0);
        let begin = RealInstant::now();
        let connection = world
            .stack
            .connect(world.now(), REMOTE, None)
            .map_err(|error| Failure::failed(format!("cannot connect: {error}")))?;
        let result = self.pump(world, connection);
        self.progress.finish_and_clear();
        result?;
        let seconds = begin.elapsed().as_secs_f64();
        self.report(world, connection, seconds)
    }

    fn pump<M: Machine>(
        &mut self,
        world: &mut World<M>,
        connection: ConnectionId,
    ) -> Result<(), Failure> {
        let mut last_progress = world.now();
        let mut rounds = 0u32;
        let mut quiet = 0u32;
        loop {
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(WATCH) {
                self.look_around(world)?;
            }
            let now = world.now();
            let (worked, next) = self.round(world, connection, now)?;
            if worked {
                last_progress = now;
                quiet = 0;
                world.machine.advance(ROUND);
                continue;
            }
            if self.finished(world, connection)? {
                return Ok(());
            }
            if now.saturating_since(last_progress) > STUCK {
                return Err(Failure::failed(format!(
                    "stuck: {} of {} bytes delivered, connection {:?}",
                    self.delivered,
                    self.input.len,
                    world.stack.state(connection)
                )));
            }
            self.look_around(world)?;
            quiet = quiet.saturating_add(1);
            let longest = match quiet {
                ..QUIET_ROUNDS => DEVICE_DELAY,
                _ => STUCK,
            };
            world.sleep(next.min(longest).max(ROUND));
        }
    }

    /// One round of everybody. Whether anything moved, and how long until something may.
    fn round<M: Machine>(
        &mut self,
        world: &mut World<M>,
        connection: ConnectionId,
        now: Instant,
    ) -> Result<(bool, Duration), Failure> {
        self.watch.lap();
        let mut worked = self.feed(world, connection)?;
        let (received, timer) = self.send_and_receive(world, connection, now)?;
        worked |= received;
        let lap = self.watch.lap();
        self.watch.sender += lap;
        worked |= world.machine.step();
        let lap = self.watch.lap();
        self.watch.model += lap;
        let peer = |error| Failure::failed(format!("the receiver: {error}"));
        worked |= world.peer.poll(now).map_err(peer)?;
        let lap = self.watch.lap();
        self.watch.peer += lap;
        let mut next = world.peer.next_event(now).unwrap_or(STUCK);
        next = next.min(timer.map_or(STUCK, |timer| timer.saturating_since(now)));
        next = next.min(world.cable.next_event(now).unwrap_or(STUCK));
        Ok((worked, next))
    }

    /// Offers the next bytes to the sender, and hashes what it accepts.
    fn feed<M: Machine>(
        &mut self,
        world: &mut World<M>,
        connection: ConnectionId,
    ) -> Result<bool, Failure> {
        if !world.stack.is_established(connection) || self.accepted == self.input.len {
            return Ok(false);
        }
        self.slices.clear();
        let mut position = self.accepted;
        while position < self.input.len
            && position - self.accepted < OFFER
            && self.slices.len() < SLICES
        {
            let (start, len) = self.input.piece_at(position);
            let len = len.min((OFFER - (position - self.accepted)) as usize);
            self.slices.push(Slice {
                region: world.region,
                start,
                len,
            });
            position += len as u64;
        }
        self.offered += 1;
        let accepted = world
            .stack
            .send(connection, &self.slices, self.offered)
            .map_err(|error| Failure::failed(format!("cannot send: {error}")))?;
        let lap = self.watch.lap();
        self.watch.sender += lap;
        self.hash_accepted(world, accepted);
        let lap = self.watch.lap();
        self.watch.hash += lap;
        self.accepted += accepted as u64;
        if self.accepted == self.input.len && !self.closed {
            self.closed = true;
            let now = world.now();
            world.stack.close(now, connection);
        }
        Ok(accepted > 0)
    }

    fn hash_accepted<M: Machine>(&mut self, world: &World<M>, accepted: usize) {
        let mut left = accepted;
        for slice in &self.slices {
            let len = slice.len.min(left);
            let bytes = M::bytes(&world.sealed).get(slice.start..slice.start + len);
            self.hash.update(bytes.unwrap_or_default());
            left -= len;
        }
    }

    /// Driver and sender: what a user of the library runs.
    fn send_and_receive<M: Machine>(
        &mut self,
        world: &mut World<M>,
        connection: ConnectionId,
        now: Instant,
    ) -> Result<(bool, Option<Instant>), Failure> {
        let World { rx, stack, .. } = world;
        let scratch = &mut self.scratch;
        let device = |error| Failure::failed(format!("the NIC: {error}"));
        let received = rx
            .receive(RECEIVE_BUDGET, &mut |frame| {
                stack.input(now, frame.copy_to(scratch), frame.checksum());
            })
            .map_err(device)?;
        let posted = stack.port().counters().frames;
        let timer = stack.poll(now).map_err(device)?;
        let mut worked = received > 0 || stack.port().counters().frames != posted;
        while let Some(completion) = stack.completion(now, connection) {
            self.delivered += completion.bytes as u64;
            worked = true;
        }
        if let Some(error) = stack.error(connection) {
            return Err(Failure::failed(format!("the connection broke: {error}")));
        }
        Ok((worked, timer))
    }

    /// Now and then: Ctrl-C, the device's health, the progress bar.
    fn look_around<M: Machine>(&mut self, world: &mut World<M>) -> Result<(), Failure> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Failure::interrupted());
        }
        self.progress.set_position(self.delivered);
        let now = world.now();
        let phase = world.nic.poll(now);
        let hung_since = match phase {
            Ok(Phase::Hung) => *self.hung_since.get_or_insert(now),
            _ => {
                self.hung_since = None;
                now
            }
        };
        match phase {
            Ok(Phase::Running(_)) => Ok(()),
            // It may be that QEMU or the kernel had no turn on a busy machine.
            Ok(Phase::Hung) if now.saturating_since(hung_since) < HUNG => Ok(()),
            Ok(phase) => Err(Failure::failed(format!("the NIC is {phase:?}"))),
            Err(error) => Err(Failure::failed(format!("the NIC: {error}"))),
        }
    }

    /// Whether the peer has everything and every page has come back.
    fn finished<M: Machine>(
        &self,
        world: &mut World<M>,
        connection: ConnectionId,
    ) -> Result<bool, Failure> {
        let arrived = world
            .peer
            .arrived()
            .map_err(|error| Failure::failed(error.to_string()))?;
        let port = world.stack.port();
        Ok(arrived.is_some()
            && self.delivered == self.input.len
            && port.outstanding() == 0
            && matches!(
                world.stack.state(connection),
                Some(State::TimeWait | State::Closed)
            ))
    }
}

fn progress_bar(len: u64) -> ProgressBar {
    // Hidden when nobody watches: a bar in a log file is noise.
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(10)
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = "{bar:40} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} eta {eta}";
    let bar = ProgressBar::with_draw_target(Some(len), target);
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
