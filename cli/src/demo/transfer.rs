//! The loop of the demo: feed, send, let the device work, let the peer work; with a stopwatch.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as RealInstant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pagewire::hal::{Instant, Phase, RxQueue};
use pagewire::tcp::{ConnectionId, LentTimes, Slice, State};
use sha2::{Digest, Sha256};

use super::args::{Args, DmaPage, PeerKind};
use super::input::Input;
use super::machine::Machine;
use super::report::{
    Bytes, Checksums, Digests, Frames, Limits, Pages, Report, Retransmissions, Segments, Time,
    grouped,
};
use super::world::{PAGE, REMOTE, World};
use crate::device::Backend;
use crate::error::{Failure, shown};
use crate::receiver::hex;

/// Bytes offered to the sender in one call.
const OFFER: u64 = 256 << 10;
/// Slices offered in one call.
const SLICES: usize = 128;
/// Received frames handled in one round.
const RECEIVE_BUDGET: usize = 256;
/// What a round takes on the virtual clock.
const ROUND: Duration = Duration::from_micros(10);
/// Nothing has moved for so long, on the clock of the demo: it is stuck.
const STUCK: Duration = Duration::from_secs(120);
/// The model's own delays (late write-backs) are shorter than this.
const DEVICE_DELAY: Duration = Duration::from_millis(1);
/// After so many rounds in which nothing moved, the model holds nothing back any more: time may
/// leap to the next timer. Without it a minute of silence costs 60,000 rounds.
const QUIET_ROUNDS: u32 = 64;
/// How often device and interrupt key are looked at.
const WATCH: u32 = 1024;

/// Where the CPU time of this thread goes: what other programs take does not count.
#[derive(Default)]
struct Stopwatch {
    sender: Duration,
    model: Duration,
    peer: Duration,
    hash: Duration,
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
    args: &'a Args,
    input: &'a Input,
    stop: &'a AtomicBool,
    offered: u64,
    accepted: u64,
    delivered: u64,
    hash: Sha256,
    closed: bool,
    watch: Stopwatch,
    progress: ProgressBar,
    scratch: Vec<u8>,
    slices: Vec<Slice>,
}

impl<'a> Transfer<'a> {
    pub(crate) fn new(args: &'a Args, input: &'a Input, stop: &'a AtomicBool) -> Self {
        Self {
            args,
            input,
            stop,
            offered: 0,
            accepted: 0,
            delivered: 0,
            hash: Sha256::new(),
            closed: false,
            watch: Stopwatch::default(),
            progress: progress_bar(input.len),
            scratch: vec![0; 16 << 10],
            slices: Vec::with_capacity(SLICES),
        }
    }

    /// Sends everything and reports.
    pub(crate) fn run<M: Machine>(mut self, world: &mut World<M>) -> Result<Report, Failure> {
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
        match pagewire::hal::Nic::poll(&mut world.nic, now) {
            Ok(Phase::Running(_)) => Ok(()),
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

    fn report<M: Machine>(
        self,
        world: &mut World<M>,
        connection: ConnectionId,
        seconds: f64,
    ) -> Result<Report, Failure> {
        let device = |error| Failure::failed(format!("the NIC: {error}"));
        let stats = world
            .stack
            .connection_stats(connection)
            .cloned()
            .unwrap_or_default();
        // Before the connection is removed and the device stopped: both give back whatever is
        // left, and would hide a page that acknowledgement and completion did not release.
        let pages = pages(world, &stats.lent);
        let now = world.now();
        world.stack.remove(now, connection);
        world.shut_down().map_err(device)?;
        world.cable.finish()?;
        let arrived = world
            .peer
            .arrived()
            .map_err(|error| Failure::failed(error.to_string()))?;
        let sent = hex(&self.hash.finalize());
        let received = arrived
            .as_ref()
            .map_or_else(String::new, |a| a.sha256.clone());
        let digests = Digests {
            equal: sent == received,
            sent,
            received,
        };
        let copied = &stats.copied;
        let seen = world.machine.seen();
        let fetched = seen.region_bytes;
        let mut faults = seen.violations;
        faults
            .iter_mut()
            .for_each(|text| text.insert_str(0, "violation: "));
        let limit = u32::from(world.stack.port().capabilities().max_fragments);
        let must = [
            (digests.equal, "the digests differ"),
            (
                arrived.is_some_and(|a| a.bytes == self.input.len),
                "the lengths differ",
            ),
            (pages.pinned_now == 0, "pages are still pinned"),
            (
                seen.most_fragments.is_none_or(|most| most <= limit),
                "the device saw more fragments in a frame than it takes",
            ),
            (
                fetched.is_none_or(|bytes| bytes == stats.shared_bytes),
                "the device fetched other bytes than were shared",
            ),
        ];
        faults.extend(
            must.iter()
                .filter(|(held, _)| !held)
                .map(|(_, text)| (*text).to_owned()),
        );
        let args = self.args;
        let peer_seconds = self.watch.peer.as_secs_f64() + world.peer.foreign_cpu_seconds();
        Ok(Report {
            nic: args.device().description().into(),
            input_mapped_by: args.device().mapping(),
            device_cpu: device_cpu(args),
            peer: peer_name(args.peer).into(),
            input: input_name(args, self.input.len),
            seed: args.seed,
            limits: Limits {
                max_fragments: world.stack.port().capabilities().max_fragments,
                mtu: args.mtu,
                dma_page: page_name(args.dma_page).into(),
                slice: args.slice,
                device_checksums: !args.no_checksum,
            },
            bytes: Bytes {
                shared: stats.shared_bytes,
                shared_as_fetched: fetched,
                copied_to_rescue: stats.rescued.bytes,
                copied_over_budget: copied.over_budget.bytes,
                copied_no_gather: copied.no_gather.bytes,
                copied_too_short: copied.too_short.bytes,
            },
            segments: Segments {
                shared: stats.shared_segments,
                rescued: stats.rescued.segments,
                copied: copied.total().segments,
            },
            frames: frames(world, seen.most_fragments),
            checksums: Checksums {
                by_device: stats.checksums.tcp_device,
                by_cpu: stats.checksums.tcp_cpu,
            },
            pages,
            retransmissions: Retransmissions {
                segments: stats.fast_retransmits.segments + stats.timeout_retransmits.segments,
                fast: stats.fast_retransmits.segments,
                timeouts: stats.timeout_retransmits.segments,
            },
            wire: world.cable.counts(),
            time: Time {
                seconds,
                megabytes_per_second: self.input.len as f64 / seconds / 1e6,
                sender_seconds: self.watch.sender.as_secs_f64(),
                model_seconds: self.watch.model.as_secs_f64(),
                peer_seconds,
                hash_seconds: self.watch.hash.as_secs_f64(),
            },
            digests,
            faults,
        })
    }
}

fn pages<M: Machine>(world: &World<M>, lent: &LentTimes) -> Pages {
    let ledger = world.stack.port().ledger().counters();
    let micros = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64() * 1e6;
    Pages {
        page: PAGE,
        pinned_at_most: ledger.pinned_pages_peak,
        pinned_now: ledger.pinned_pages,
        lent_p50_us: micros(lent.percentile(50)),
        lent_p99_us: micros(lent.percentile(99)),
        clock: if world.machine.advance(Duration::ZERO) {
            "virtual"
        } else {
            "real"
        },
    }
}

fn frames<M: Machine>(world: &World<M>, most_fragments_seen: Option<u32>) -> Frames {
    let counters = world.stack.port().counters();
    let counts = counters.by_fragments.iter().copied().enumerate();
    Frames {
        posted: counters.frames,
        by_fragments: counts.filter(|(_, count)| *count > 0).collect(),
        most_fragments_seen,
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

/// What the CPU time of a step is spent on. A write to the TAP runs the kernel's receive path.
fn device_cpu(args: &Args) -> &'static str {
    match (args.device().backend, args.peer) {
        (Backend::Model, PeerKind::Smoltcp) => "  model and wire",
        (Backend::Model, PeerKind::Linux) => "  model, wire, kernel behind it",
        (Backend::Qtest, PeerKind::Smoltcp) => "  wire (QEMU is not counted)",
        (Backend::Qtest, PeerKind::Linux) => "  wire, kernel behind it (not QEMU)",
    }
}

fn peer_name(peer: PeerKind) -> &'static str {
    match peer {
        PeerKind::Smoltcp => "smoltcp's TCP, in this process",
        PeerKind::Linux => "the kernel's TCP, over a TAP in a network namespace",
    }
}

fn page_name(page: DmaPage) -> &'static str {
    match page {
        DmaPage::K4 => "4 KiB",
        DmaPage::K16 => "16 KiB",
        DmaPage::K64 => "64 KiB",
        DmaPage::M2 => "2 MiB",
        DmaPage::Contiguous => "contiguous",
    }
}

fn input_name(args: &Args, len: u64) -> String {
    match &args.file {
        Some(path) => format!("{} bytes of {}", grouped(len), shown(path)),
        None => format!("{} bytes, generated from seed {}", grouped(len), args.seed),
    }
}
