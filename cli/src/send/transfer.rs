//! The loop of the sender.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use pagewire::hal::{Instant, Nic};
use pagewire::outbox::{Message, OutboxError};
use pagewire::tcp::{ConnectionId, SendOptions, State};

use super::Args;
use super::report::{FileReport, Report};
use crate::endpoint::{Budget, Endpoint, Home};
use crate::error::{Failure, shown};
use crate::progress::progress_bar;

/// Memory for what is copied.
const COPIES: usize = 1 << 20;
/// Buffers for what is read, where it cannot be mapped.
const BUFFERS: usize = 64;
/// How long the receiver may take to end its side after it has everything.
const LINGER: Duration = Duration::from_secs(3);

/// A file to send.
pub(super) struct Input {
    /// `None`: it has been handed over.
    file: Option<File>,
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
            file: Some(file),
            report: FileReport::new(name, len),
        })
    }
}

/// Everything that takes part.
pub(super) struct Transfer<'a, H: Home> {
    args: &'a Args,
    endpoint: Endpoint<H>,
    device: String,
    id: ConnectionId,
    inputs: Vec<Input>,
    /// Files that are over.
    over: usize,
    total: u64,
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
            connections: 1,
            buffers: BUFFERS,
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
            over: 0,
            total,
            closed: false,
            begin,
            taken: (begin, 0),
            progress: progress_bar(total),
        })
    }

    /// Works until the receiver has everything.
    pub(super) fn run(&mut self, stop: &dyn Fn() -> bool) -> Result<Report, Failure> {
        let mut arrived = None;
        self.hand_over();
        loop {
            if stop() {
                return Err(Failure::interrupted());
            }
            let now = self.endpoint.home.now();
            let mut worked = self.endpoint.receive(now)?;
            self.drop_what_comes();
            self.close(now);
            let (active, timer) = self.endpoint.work(now)?;
            worked |= active;
            worked |= self.take_completions()?;
            self.progress.set_position(self.delivered());
            if self.closed && self.over == self.inputs.len() && self.delivered() == self.total {
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
        if !is_well {
            let now = self.endpoint.home.now();
            let Endpoint { outbox, stack, .. } = &mut self.endpoint;
            outbox.remove(stack, now, self.id);
        }
        self.endpoint.end()
    }

    /// Hands over all files, to be sent one behind the other.
    fn hand_over(&mut self) {
        let mut options = SendOptions::default();
        options.copy = self.args.copy.rule();
        options.explain = true;
        for input in &mut self.inputs {
            if let Some(file) = input.file.take() {
                let message = Message::new().options(options);
                let message = message.file(file, 0..input.report.bytes);
                self.endpoint.outbox.send(self.id, message);
            }
        }
    }

    fn take_completions(&mut self) -> Result<bool, Failure> {
        let mut worked = false;
        while let Some(done) = self.endpoint.outbox.done(self.id) {
            worked = true;
            if let Some(input) = self.inputs.get_mut(self.over) {
                input.report.add(&done);
                if let Some(error @ OutboxError::Read(_)) = done.error {
                    let name = &input.report.name;
                    return Err(Failure::failed(format!("cannot send {name}: {error}")));
                }
            }
            self.over += 1;
        }
        Ok(worked)
    }

    /// Bytes that the receiver has.
    fn delivered(&self) -> u64 {
        let stats = self.endpoint.stack.connection_stats(self.id);
        stats.map_or(0, |stats| stats.bytes_acked)
    }

    /// Reads what the receiver says, so that its end is seen, and keeps nothing of it.
    fn drop_what_comes(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(1..) = self.endpoint.stack.receive(self.id, &mut bytes) {}
    }

    /// Ends our side behind the last file. Not before there is a connection: of nothing but empty files
    /// the receiver sees the end too.
    fn close(&mut self, now: Instant) {
        if !self.closed && self.endpoint.stack.is_established(self.id) {
            self.closed = true;
            let Endpoint { outbox, stack, .. } = &mut self.endpoint;
            outbox.close(stack, now, self.id);
        }
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
        let acked = self.delivered();
        if acked != self.taken.1 || stack.state(self.id) == Some(State::SynSent) {
            self.taken = (now, acked);
        }
        let is_due = acked < self.total || self.over < self.inputs.len();
        if is_due && now.saturating_since(self.taken.0) > self.args.timeout {
            let seconds = self.args.timeout.as_secs_f64();
            return Err(self.broken(&format!("it has taken nothing for {seconds} s")));
        }
        Ok(())
    }

    fn broken(&self, why: &dyn std::fmt::Display) -> Failure {
        Failure::failed(format!(
            "{}: {why}; {} of {} bytes have arrived",
            self.args.to,
            self.delivered(),
            self.total
        ))
    }

    fn report(&mut self, arrived: Instant) -> Report {
        let stats = self.endpoint.stack.connection_stats(self.id);
        Report {
            device: self.device.clone(),
            to: self.args.to.to_string(),
            bytes: self.delivered(),
            seconds: arrived.saturating_since(self.begin).as_secs_f64(),
            retransmitted_segments: stats.map_or(0, |stats| stats.retransmits().segments),
            most_locked_bytes: self.endpoint.outbox.counters().most_mapped as u64,
            files: std::mem::take(&mut self.inputs)
                .into_iter()
                .map(|input| input.report)
                .collect(),
        }
    }
}
