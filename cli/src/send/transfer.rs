//! The loop of the sender.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use pagewire::hal::{Instant, Nic, RegionId};
use pagewire::tcp::{ConnectionId, Outcome, SendOptions, State};

use super::Args;
use super::report::{FileReport, Report};
use crate::endpoint::{Budget, Claims, Endpoint, FileStream, Home, NoRoom};
use crate::error::{Failure, shown};
use crate::progress::progress_bar;

/// Memory for what is copied.
const COPIES: usize = 1 << 20;
/// How long the receiver may take to end its side after it has everything.
const LINGER: Duration = Duration::from_secs(3);
/// How long the end may take: a reset is sent, and pages come back.
const LONGEST_END: Duration = Duration::from_secs(2);

/// A file to send.
pub(super) struct Input {
    stream: FileStream,
    report: FileReport,
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let name = shown(path);
        let refused =
            |why: &dyn std::fmt::Display| Failure::usage(format!("cannot send {name}: {why}"));
        // A pipe is not waited for.
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|error| refused(&error))?;
        let metadata = file.metadata().map_err(|error| refused(&error))?;
        if !metadata.is_file() {
            return Err(refused(
                &"it is no regular file, which alone can be lent where it is",
            ));
        }
        let len = metadata.len();
        Ok(Self {
            stream: FileStream::new(file, 0..len),
            report: FileReport::new(name, len),
        })
    }
}

/// A call of `send`.
struct Call {
    /// The index of the file.
    input: usize,
    /// What is used up with it.
    ends: Option<RegionId>,
}

/// Everything that takes part.
pub(super) struct Transfer<'a, H: Home> {
    args: &'a Args,
    endpoint: Endpoint<H>,
    device: String,
    id: ConnectionId,
    inputs: Vec<Input>,
    /// The file whose turn it is.
    current: usize,
    calls: VecDeque<Call>,
    claims: Claims,
    total: u64,
    delivered: u64,
    closed: bool,
    begin: Instant,
    /// Since when the receiver has taken nothing, and how much it had then.
    taken: (Instant, u64),
    progress: ProgressBar,
}

impl<'a, H: Home> Transfer<'a, H> {
    /// Opens the device and the connection.
    pub(super) fn new(
        args: &'a Args,
        inputs: Vec<Input>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, Failure> {
        let link = args.link.at(args.from)?;
        let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
        let budget = Budget {
            connection: limit,
            total: limit,
            share_min: args.share_min,
        };
        let mut endpoint = Endpoint::<H>::open(&link, budget)?;
        endpoint.prepare_copies(COPIES)?;
        endpoint.await_link(&link.device, stop)?;
        let device = endpoint.home.about(&link, endpoint.nic.name());
        let begin = endpoint.home.now();
        let id = endpoint.stack.connect(begin, args.to, None);
        let id = id.map_err(|error| Failure::usage(format!("--to {}: {error}", args.to)))?;
        let total = inputs.iter().map(|input| input.report.bytes).sum();
        Ok(Self {
            args,
            endpoint,
            device,
            id,
            inputs,
            current: 0,
            calls: VecDeque::new(),
            claims: Claims::default(),
            total,
            delivered: 0,
            closed: false,
            begin,
            taken: (begin, 0),
            progress: progress_bar(total),
        })
    }

    /// Works until the receiver has everything.
    pub(super) fn run(&mut self, stop: &dyn Fn() -> bool) -> Result<Report, Failure> {
        let mut arrived = None;
        loop {
            if stop() {
                return Err(Failure::interrupted());
            }
            let now = self.endpoint.home.now();
            let mut worked = self.endpoint.receive(now)?;
            worked |= self.take_completions(now);
            self.drop_what_comes();
            worked |= self.feed(now)?;
            let (active, timer) = self.endpoint.work(now)?;
            worked |= active;
            worked |= self.endpoint.collect();
            if self.closed && self.calls.is_empty() && self.delivered == self.total {
                let since = *arrived.get_or_insert(now);
                if self.is_over() || now.saturating_since(since) > LINGER {
                    return Ok(self.report(since));
                }
            }
            self.watch(now)?;
            if !worked {
                self.endpoint.sleep(now, timer);
            }
        }
    }

    /// Takes everything back and stops the device. Unless all `is_well`, the receiver is told.
    pub(super) fn end(&mut self, is_well: bool) -> Result<(), Failure> {
        self.progress.finish_and_clear();
        let mut now = self.endpoint.home.now();
        if !is_well {
            self.endpoint.stack.abort(now, self.id);
        }
        self.endpoint.give_up_all(&mut self.claims);
        let end = now + LONGEST_END;
        loop {
            let (active, timer) = self.endpoint.work(now)?;
            self.endpoint.collect();
            let is_quiet = self.endpoint.stack.port().outstanding() == 0 && !active;
            if is_quiet || now > end {
                break;
            }
            self.endpoint.sleep(now, timer);
            now = self.endpoint.home.now();
        }
        let stopped = self.endpoint.shut_down();
        self.endpoint.collect();
        stopped.map_err(|error| Failure::failed(format!("the NIC could not be stopped: {error}")))
    }

    fn take_completions(&mut self, now: Instant) -> bool {
        let mut worked = false;
        while let Some((completion, explanation)) = self.endpoint.stack.explained(now, self.id) {
            worked = true;
            let Some(call) = self.calls.pop_front() else {
                break;
            };
            if completion.outcome == Outcome::Delivered {
                self.delivered += completion.bytes as u64;
            }
            if let (Some(input), Some(explanation)) = (self.inputs.get_mut(call.input), explanation)
            {
                input.report.add(&explanation);
            }
            if let Some(region) = call.ends {
                self.endpoint.give_up(region, &mut self.claims);
            }
            self.progress.set_position(self.delivered);
        }
        worked
    }

    /// Reads what the receiver says, so that its end is seen, and keeps nothing of it.
    fn drop_what_comes(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(1..) = self.endpoint.stack.receive(self.id, &mut bytes) {}
    }

    /// Hands the next bytes to the stack, as many as it takes.
    fn feed(&mut self, now: Instant) -> Result<bool, Failure> {
        let mut options = SendOptions::default();
        options.copy = self.args.copy.rule();
        options.explain = true;
        let mut worked = false;
        while let Some(input) = self.inputs.get_mut(self.current) {
            if input.stream.is_done() {
                self.current += 1;
                continue;
            }
            if self.endpoint.stack.send_room(self.id) == 0 {
                return Ok(worked);
            }
            let slice = match input.stream.slice(&mut self.endpoint, &mut self.claims) {
                Ok(slice) => slice,
                Err(NoRoom::Now) => return Ok(worked),
                Err(NoRoom::Ever(why)) => {
                    let name = &input.report.name;
                    return Err(Failure::failed(format!("cannot send {name}: {why}")));
                }
            };
            let stack = &mut self.endpoint.stack;
            let accepted = stack.send_with(now, self.id, &[slice], 0, &options);
            let accepted = match accepted {
                Ok(0) => return Ok(worked),
                Ok(accepted) => accepted,
                // `watch` says what has happened to it.
                Err(_) if stack.error(self.id).is_some() => return Ok(worked),
                Err(error) => return Err(self.broken(&error)),
            };
            self.calls.push_back(Call {
                input: self.current,
                ends: input.stream.advance(accepted),
            });
            worked = true;
        }
        // Not before there is a connection: of nothing but empty files the receiver sees the end too.
        if !self.closed && self.endpoint.stack.is_established(self.id) {
            self.closed = true;
            self.endpoint.stack.close(now, self.id);
        }
        Ok(worked)
    }

    /// Whether both sides have ended.
    fn is_over(&self) -> bool {
        let state = self.endpoint.stack.state(self.id);
        matches!(state, None | Some(State::TimeWait | State::Closed))
    }

    /// Looks whether the connection lives.
    fn watch(&mut self, now: Instant) -> Result<(), Failure> {
        let stack = &self.endpoint.stack;
        if let Some(error) = stack.error(self.id) {
            return Err(self.broken(&error));
        }
        let stats = stack.connection_stats(self.id);
        let acked = stats.map_or(0, |stats| stats.bytes_acked);
        if acked != self.taken.1 || stack.state(self.id) == Some(State::SynSent) {
            self.taken = (now, acked);
        }
        let is_due = self.delivered < self.total || !self.calls.is_empty();
        if is_due && now.saturating_since(self.taken.0) > self.args.timeout {
            let seconds = self.args.timeout.as_secs_f64();
            return Err(self.broken(&format!("it has taken nothing for {seconds} s")));
        }
        Ok(())
    }

    fn broken(&self, why: &dyn std::fmt::Display) -> Failure {
        Failure::failed(format!(
            "{}: {why}; {} of {} bytes have arrived",
            self.args.to, self.delivered, self.total
        ))
    }

    fn report(&mut self, arrived: Instant) -> Report {
        let stats = self.endpoint.stack.connection_stats(self.id);
        Report {
            device: self.device.clone(),
            to: self.args.to.to_string(),
            bytes: self.delivered,
            seconds: arrived.saturating_since(self.begin).as_secs_f64(),
            retransmitted_segments: stats.map_or(0, |stats| stats.retransmits().segments),
            most_locked_bytes: self.endpoint.most_mapped_bytes() as u64,
            files: std::mem::take(&mut self.inputs)
                .into_iter()
                .map(|input| input.report)
                .collect(),
        }
    }
}
