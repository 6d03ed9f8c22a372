//! The loop of the demo: the lanes work, then the device, then the peer; with a stopwatch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as RealInstant};

use indicatif::ProgressBar;
use pagewire::hal::{Instant, Nic, Phase};

use super::args::Args;
use super::crew::{Crew, Round};
use super::input::Input;
use super::lane::Lane;
use super::machine::Machine;
use super::report::Report;
use super::stopwatch::Stopwatch;
use super::world::World;
use crate::error::Failure;
use crate::progress::progress_bar;

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

/// One transfer and what is known of it so far.
pub(crate) struct Transfer<'a> {
    pub(super) args: &'a Args,
    pub(super) input: &'a Input,
    stop: &'a AtomicBool,
    /// Bytes that all connections are to carry.
    pub(super) total: u64,
    delivered: u64,
    /// Since when the NIC has made no progress.
    hung_since: Option<Instant>,
    pub(super) watch: Stopwatch,
    progress: ProgressBar,
}

impl<'a> Transfer<'a> {
    pub(crate) fn new(args: &'a Args, input: &'a Input, stop: &'a AtomicBool) -> Self {
        let total = input.len.saturating_mul(args.connections().into());
        Self {
            args,
            input,
            stop,
            total,
            delivered: 0,
            hung_since: None,
            watch: Stopwatch::default(),
            progress: progress_bar(total),
        }
    }

    /// Sends everything and reports.
    pub(crate) fn run<M: Machine>(mut self, world: &mut World<M>) -> Result<Report, Failure> {
        let begin = RealInstant::now();
        let owners = world.connect(self.args)?;
        if let Some(scribble) = &world.scribble {
            scribble.start(self.args.seed)?;
        }
        let mut lanes = std::mem::take(&mut world.lanes);
        let result = std::thread::scope(|scope| {
            let crew = Crew::start(scope, &mut lanes, self.input, &owners)?;
            self.pump(world, crew)
        });
        world.lanes = lanes;
        self.progress.finish_and_clear();
        if !result? {
            return Err(self.stuck(world));
        }
        let seconds = begin.elapsed().as_secs_f64();
        self.report(world, seconds)
    }

    /// Works until the peer has everything; `false` if nothing moves any more.
    fn pump<M: Machine>(
        &mut self,
        world: &mut World<M>,
        mut crew: Crew<'_, M>,
    ) -> Result<bool, Failure> {
        let mut last_progress = world.now();
        let mut rounds = 0u32;
        let mut quiet = 0u32;
        loop {
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(WATCH) {
                self.look_around(world)?;
            }
            let now = world.now();
            let lanes = crew.round(now)?;
            self.delivered = lanes.delivered;
            let (worked, next) = self.others(world, &lanes, now)?;
            if worked {
                last_progress = now;
                quiet = 0;
                world.machine.advance(ROUND);
                continue;
            }
            if lanes.finished && world.arrived()?.is_some() {
                return Ok(true);
            }
            if now.saturating_since(last_progress) > STUCK {
                return Ok(false);
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

    /// One round of everybody else. Whether anything moved, and how long until something may.
    fn others<M: Machine>(
        &mut self,
        world: &mut World<M>,
        lanes: &Round,
        now: Instant,
    ) -> Result<(bool, Duration), Failure> {
        self.watch.lap();
        let mut worked = lanes.worked;
        worked |= world.machine.step();
        let lap = self.watch.lap();
        self.watch.model += lap;
        let peer = |error| Failure::failed(format!("the receiver: {error}"));
        worked |= world.peer.poll(now).map_err(peer)?;
        let lap = self.watch.lap();
        self.watch.peer += lap;
        let timer = lanes.timer.map(|timer| timer.saturating_since(now));
        let events = [
            timer,
            world.peer.next_event(now),
            world.cable.next_event(now),
        ];
        let next = events.into_iter().flatten().min().unwrap_or(STUCK);
        Ok((worked, next.min(STUCK)))
    }

    fn stuck<M: Machine>(&self, world: &World<M>) -> Failure {
        let states: Vec<_> = world.lanes.iter().flat_map(Lane::states).collect();
        Failure::failed(format!(
            "stuck: {} of {} bytes delivered, connections {states:?}",
            self.delivered, self.total,
        ))
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
}
