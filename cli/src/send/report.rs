//! What became of the files.

use std::time::Duration;

use pagewire::outbox::Done;
use pagewire::tcp::Explanation;
use serde::Serialize;

use crate::demo::{grouped, part};
use crate::error::{Failure, print};

/// The report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) device: String,
    pub(super) to: String,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    /// Segments that were sent again.
    pub(super) retransmitted_segments: u64,
    /// The most bytes of files that were locked in memory.
    pub(super) most_locked_bytes: u64,
    pub(super) files: Vec<FileReport>,
}

/// Which way the bytes of a file went. What was sent again counts again in `sent`.
#[derive(Debug, Default, Serialize)]
pub(super) struct FileReport {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// Calls of `send`.
    calls: u64,
    taken: Taken,
    sent: Sent,
    frames: u64,
    /// Pieces of these frames, headers included.
    fragments: u64,
    held: Held,
}

/// How the bytes were handed in.
#[derive(Debug, Default, Serialize)]
struct Taken {
    lent: u64,
    copied_as_asked: u64,
    copied_below_threshold: u64,
    copied_over_limit: u64,
    copied_as_lending_was_refused: u64,
    /// Read into memory, as it could not be mapped.
    read: u64,
}

/// Where the device found them.
#[derive(Debug, Default, Serialize)]
struct Sent {
    shared: u64,
    from_copies: u64,
    copied_no_gather: u64,
    copied_over_budget: u64,
    copied_too_short: u64,
    copied_live: u64,
}

/// From the call of `send` until none of its bytes was needed any more, in milliseconds.
#[derive(Debug, Default, Serialize)]
struct Held {
    mean_ms: f64,
    most_ms: f64,
}

impl FileReport {
    pub(super) fn new(name: String, bytes: u64) -> Self {
        Self {
            name,
            bytes,
            ..Self::default()
        }
    }

    /// Takes what is known of its way. What was read counts there as lent, or as copied once more if
    /// that was asked for, from where it had been read to.
    pub(super) fn add(&mut self, done: &Done) {
        let Some(whole) = &done.explanation else {
            return;
        };
        let early = whole.copied_early;
        let of_lent = done.copied.min(whole.lent);
        let (shared, from_copies) = fetched(whole, done.copied, done.delivered);
        self.taken = Taken {
            lent: whole.lent - of_lent,
            copied_as_asked: early.asked.saturating_sub(done.copied - of_lent),
            copied_below_threshold: early.below_threshold,
            copied_over_limit: early.over_limit,
            copied_as_lending_was_refused: early.refused,
            read: done.copied,
        };
        self.sent = Sent {
            shared,
            from_copies,
            copied_no_gather: whole.no_gather,
            copied_over_budget: whole.over_budget,
            copied_too_short: whole.too_short,
            copied_live: whole.live,
        };
        self.frames = whole.frames;
        self.fragments = whole.fragments;
        self.calls = done.calls;
        self.held = Held {
            mean_ms: milliseconds(done.held) / done.calls.max(1) as f64,
            most_ms: milliseconds(whole.held),
        };
    }

    fn explain(&self) -> Vec<String> {
        let Self { taken, sent, .. } = self;
        let rows = [
            ("lent where they are", taken.lent),
            ("copied, as asked for", taken.copied_as_asked),
            (
                "copied, as lending so few costs more",
                taken.copied_below_threshold,
            ),
            ("copied, over the limit", taken.copied_over_limit),
            (
                "copied, as lending was refused",
                taken.copied_as_lending_was_refused,
            ),
            ("read, as it could not be mapped", taken.read),
            ("fetched by the NIC from the file", sent.shared),
            ("fetched by the NIC from a copy", sent.from_copies),
            (
                "copied for a frame: the NIC does not gather",
                sent.copied_no_gather,
            ),
            (
                "copied for a frame: too many pieces",
                sent.copied_over_budget,
            ),
            (
                "copied for a frame: it would be too short",
                sent.copied_too_short,
            ),
            (
                "copied for a frame: only the CPU can sum it",
                sent.copied_live,
            ),
        ];
        let some = rows.into_iter().filter(|(_, bytes)| *bytes > 0);
        let mut lines: Vec<_> = some
            .map(|(name, bytes)| format!("  {name:<44} {}", part(bytes, self.bytes)))
            .collect();
        let pieces = self.fragments as f64 / self.frames.max(1) as f64;
        lines.push(format!(
            "  {:<44} {}, of {pieces:.1} pieces each",
            "frames",
            grouped(self.frames)
        ));
        lines.push(format!(
            "  {:<44} {:.2} ms on average, {:.2} ms at most, in {} calls",
            "held",
            self.held.mean_ms,
            self.held.most_ms,
            grouped(self.calls)
        ));
        lines
    }
}

impl Report {
    pub(super) fn print(&self, explain: bool, json: bool) -> Result<(), Failure> {
        if json {
            let text = serde_json::to_string(self);
            return print(
                &text.map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?,
            );
        }
        let mut lines = Vec::new();
        for file in &self.files {
            lines.push(format!("{}: {} bytes", file.name, grouped(file.bytes)));
            if explain && file.bytes > 0 {
                lines.extend(file.explain());
            }
        }
        let rate = self.bytes as f64 / 1e6 / self.seconds.max(1e-9);
        lines.push(format!(
            "{} bytes have arrived at {} in {:.3} s ({rate:.0} MB/s), {} segments were sent again",
            grouped(self.bytes),
            self.to,
            self.seconds,
            grouped(self.retransmitted_segments),
        ));
        if explain {
            lines.push(format!(
                "by {}; at most {} bytes of files were locked in memory",
                self.device,
                grouped(self.most_locked_bytes)
            ));
        }
        print(&lines.join("\n"))
    }
}

/// Bytes that the NIC fetched from the file, and from a copy, of a message of which `read` bytes had been
/// read and `delivered` have arrived.
fn fetched(whole: &Explanation, read: u64, delivered: u64) -> (u64, u64) {
    let copied = whole.no_gather + whole.over_budget + whole.too_short + whole.live;
    let posted = whole.shared + whole.from_pool + copied;
    let mut of_copies = read.min(whole.lent);
    if read > 0 {
        // Whatever was sent again may have been of what was read.
        of_copies += posted.saturating_sub(delivered);
    }
    let of_copies = of_copies.min(whole.shared);
    (whole.shared - of_copies, whole.from_pool + of_copies)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a message of 300 bytes of which 100 were read, and 50 were sent twice.
    #[test]
    fn what_was_read_is_not_called_fetched_from_the_file_when_it_is_sent_again() {
        let mut whole = Explanation::default();
        (whole.lent, whole.shared) = (300, 350);
        assert_eq!(fetched(&whole, 0, 300), (350, 0));
        assert_eq!(fetched(&whole, 100, 300), (200, 150));
        assert_eq!(fetched(&whole, 300, 300), (0, 350));
        // Copied where it had been read to, as that was asked for.
        (whole.lent, whole.shared, whole.from_pool) = (0, 0, 350);
        assert_eq!(fetched(&whole, 300, 300), (0, 350));
    }
}
