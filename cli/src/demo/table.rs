//! The report for people: a table of names and values.

use super::report::{Limits, Queue, Report, Requests, Vfio};

/// Ranges of fragments that get a row, from the number after the one before: whole pages of 64 KiB
/// and a header make 18 at most.
const RANGES: [usize; 10] = [1, 2, 3, 4, 8, 16, 18, 32, 64, 128];

/// Rows of names and values, as strings.
macro_rules! table {
    ($(($name:expr, $value:expr $(,)?)),* $(,)?) => { vec![$((String::from($name), $value)),*] };
}

impl Report {
    /// The report as a table for people.
    pub(crate) fn table(&self) -> String {
        let rows = self.rows();
        let width = rows
            .iter()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or(0);
        let lines: Vec<_> = rows
            .iter()
            .map(|(name, value)| format!("{name:<width$}  {value}"))
            .collect();
        lines.join("\n")
    }

    fn rows(&self) -> Vec<(String, String)> {
        let Self {
            limits,
            bytes,
            segments,
            requests,
            frames,
            checksums,
            pages,
            time,
            ..
        } = self;
        let copied = bytes.copied_to_rescue
            + bytes.copied_over_budget
            + bytes.copied_no_gather
            + bytes.copied_too_short;
        let payload = bytes.shared + copied;
        let sent = segments.shared + segments.rescued + segments.copied;
        let busy = time.sender_seconds + time.model_seconds + time.peer_seconds + time.hash_seconds;
        let mut rows = table![
            ("from", self.input.clone()),
            (
                "  reachable for the NIC by",
                self.input_mapped_by.to_owned()
            ),
            ("through", self.nic.clone()),
            ("  opened as", self.opened.clone()),
            ("to", self.peer.clone()),
            ("limits", limits.text()),
            ("bytes shared", part(bytes.shared, payload)),
            (
                "  fetched there by the device",
                bytes
                    .shared_as_fetched
                    .map_or_else(|| "not counted by this device".into(), grouped)
            ),
            ("bytes copied", part(copied, payload)),
            (
                "  to rescue a segment",
                part(bytes.copied_to_rescue, payload)
            ),
            (
                "  over the page budget",
                part(bytes.copied_over_budget, payload)
            ),
            (
                "  device does not gather",
                part(bytes.copied_no_gather, payload)
            ),
            (
                "  frame would be too short",
                part(bytes.copied_too_short, payload)
            ),
            ("segments shared", part(segments.shared, sent)),
            ("  rescued (begun by a copy)", part(segments.rescued, sent)),
            ("  copied", part(segments.copied, sent)),
            ("requests to segment", requests.text()),
            (
                "  ended by the page budget",
                part(requests.ended_by_budget, requests.posted)
            ),
            ("frames posted", grouped(frames.posted)),
        ];
        rows.extend(fragments(&frames.by_fragments, frames.posted));
        rows.extend(self.queue_rows());
        rows.extend(table![
            ("TCP checksums by the device", grouped(checksums.by_device)),
            ("  by the CPU", grouped(checksums.by_cpu)),
            (
                "pages pinned at most",
                format!("{} of {}", grouped(pages.pinned_at_most), size(pages.page))
            ),
            ("  now", grouped(pages.pinned_now)),
        ]);
        if let Some(scribbling) = &self.scribbling {
            rows.extend(table![
                (
                    "written while it was sent",
                    format!(
                        "{} bytes; {} times to a protected page, {} of them slept until a release",
                        grouped(scribbling.writes),
                        grouped(scribbling.faults),
                        grouped(scribbling.waits)
                    ),
                ),
                (
                    "  by the kernel, for system calls",
                    format!(
                        "{} bytes; {} calls failed or wrote less (mode: {})",
                        grouped(scribbling.kernel_writes),
                        grouped(scribbling.kernel_refused),
                        scribbling.mode
                    ),
                ),
                (
                    "  moved away for writers",
                    format!("{} bytes", grouped(scribbling.moved)),
                ),
            ]);
        }
        if let Some(vfio) = &self.vfio {
            rows.extend(table![("memory locked for the NIC", vfio.text())]);
        }
        rows.extend(table![
            (
                "pages lent for",
                format!(
                    "p50 {}, p99 {} ({} clock)",
                    micros(pages.lent_p50_us),
                    micros(pages.lent_p99_us),
                    pages.clock
                ),
            ),
            (
                "retransmissions",
                format!(
                    "{} segments ({} fast, {} after a timeout)",
                    grouped(self.retransmissions.segments),
                    grouped(self.retransmissions.fast),
                    grouped(self.retransmissions.timeouts)
                ),
            ),
            (
                "frames on the wire",
                format!(
                    "{} lost, {} reordered, {} duplicated",
                    grouped(self.wire.lost),
                    grouped(self.wire.reordered),
                    grouped(self.wire.duplicated)
                ),
            ),
            (
                "frames at the receiver",
                format!(
                    "{}, mean {} bytes",
                    grouped(self.arrived.count),
                    grouped(self.arrived.mean_len)
                ),
            ),
            (
                "time",
                format!(
                    "{:.3} s, {:.0} MB/s",
                    time.seconds, time.megabytes_per_second
                ),
            ),
            ("CPU: driver and sender", share(time.sender_seconds, busy)),
            (self.device_cpu, share(time.model_seconds, busy)),
            ("  peer", share(time.peer_seconds, busy)),
            ("  SHA-256 of the input", share(time.hash_seconds, busy)),
            ("SHA-256 sent", self.digests.sent.clone()),
            ("  received", self.received()),
            ("result", self.verdict()),
        ]);
        rows
    }

    /// A row for each pair of queues, if there are several.
    fn queue_rows(&self) -> Vec<(String, String)> {
        if self.queues.len() < 2 {
            return Vec::new();
        }
        let mut rows = table![(
            "pairs of queues",
            format!(
                "{}, each with a port, a sender and a thread of its own",
                self.queues.len()
            )
        )];
        rows.extend(self.queues.iter().map(|queue| {
            let name = format!("  queue {}", queue.queue);
            (name, queue.text())
        }));
        rows
    }

    fn received(&self) -> String {
        let digest = &self.digests.received;
        match self.connections.len() {
            0 | 1 => digest.clone(),
            number if self.digests.equal => format!("{digest} on each of {number} connections"),
            _ => digest.clone(),
        }
    }
}

impl Queue {
    fn text(&self) -> String {
        let connections = match self.connections {
            1 => "1 connection".to_owned(),
            number => format!("{number} connections"),
        };
        format!(
            "{connections}, {} bytes in {} frames; {} received, {} of them for other queues",
            grouped(self.bytes),
            grouped(self.frames),
            grouped(self.received),
            grouped(self.received_for_others)
        )
    }
}

impl Requests {
    fn text(&self) -> String {
        let Some(mean) = self.bytes.checked_div(self.posted) else {
            return "none: the sender cuts the segments".into();
        };
        format!(
            "{}, mean {} bytes, of {} segments in all",
            grouped(self.posted),
            grouped(mean),
            grouped(self.segments)
        )
    }
}

impl Vfio {
    fn text(&self) -> String {
        format!("{} KiB, by {}", grouped(self.locked_bytes >> 10), self.api)
    }
}

impl Limits {
    fn text(&self) -> String {
        let slice = self
            .slice
            .map_or_else(String::new, |n| format!(", pieces of {n} bytes"));
        let checksums = if self.device_checksums {
            ""
        } else {
            ", no checksums by the device"
        };
        format!(
            "{} fragments a frame, MTU {}, DMA pages {}{slice}{checksums}",
            self.max_fragments, self.mtu, self.dma_page
        )
    }
}

/// A row for each range of fragments that occurred in `posted` frames, and the most.
fn fragments(frames: &[(usize, u64)], posted: u64) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut first = 0;
    for last in RANGES.into_iter().chain([usize::MAX]) {
        let is_here = |fragments: usize| (first..=last).contains(&fragments);
        let here = frames.iter().filter(|(number, _)| is_here(*number));
        let count: u64 = here.map(|(_, count)| count).sum();
        if count > 0 {
            let range = match last {
                1 => "1 fragment".to_owned(),
                usize::MAX => format!("{first} fragments and more"),
                _ if first == last => format!("{last} fragments"),
                _ => format!("{first} to {last} fragments"),
            };
            rows.push((format!("  of {range}"), part(count, posted)));
        }
        first = last.saturating_add(1).max(1);
    }
    let most = frames.iter().map(|(number, _)| *number).max();
    rows.push(("  at most".into(), most.unwrap_or(0).to_string()));
    rows
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and which part of the whole it is.
pub(crate) fn part(number: u64, whole: u64) -> String {
    if whole == 0 {
        return grouped(number);
    }
    format!(
        "{}  ({:.1} %)",
        grouped(number),
        number as f64 * 100.0 / whole as f64
    )
}

fn share(seconds: f64, whole: f64) -> String {
    format!(
        "{seconds:.3} s  ({:.0} %)",
        seconds * 100.0 / whole.max(1e-9)
    )
}

fn micros(micros: f64) -> String {
    if micros >= 1000.0 {
        format!("{:.1} ms", micros / 1000.0)
    } else {
        format!("{micros:.0} µs")
    }
}

/// Bytes of a page.
pub(super) fn size(bytes: usize) -> String {
    if bytes >= 1 << 20 {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{} KiB", bytes >> 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(part(1, 4), "1  (25.0 %)");
        assert_eq!(part(0, 0), "0");
    }

    #[test]
    fn frames_are_counted_by_ranges_of_fragments() {
        let frames = [
            (1, 10),
            (2, 20),
            (5, 1),
            (8, 2),
            (17, 3),
            (18, 4),
            (256, 60),
        ];
        let rows = fragments(&frames, 100);
        let text: Vec<_> = rows
            .iter()
            .map(|(name, value)| format!("{} {value}", name.trim()))
            .collect();
        let expected = [
            "of 1 fragment 10  (10.0 %)",
            "of 2 fragments 20  (20.0 %)",
            "of 5 to 8 fragments 3  (3.0 %)",
            "of 17 to 18 fragments 7  (7.0 %)",
            "of 129 fragments and more 60  (60.0 %)",
            "at most 256",
        ];
        assert_eq!(text, expected);
    }
}
