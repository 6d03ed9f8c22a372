//! What the demo found out: as a table, and as JSON.

use serde::Serialize;

/// Numbers of fragments that get a row of their own.
const MOST_ROWS: usize = 12;

/// Rows of names and values, as strings.
macro_rules! table {
    ($(($name:expr, $value:expr $(,)?)),* $(,)?) => { vec![$((String::from($name), $value)),*] };
}

/// The whole report. Field names are those of the JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) nic: String,
    pub(crate) peer: String,
    pub(crate) input: String,
    /// How the input became reachable for the device, before the first byte was sent.
    pub(crate) input_mapped_by: &'static str,
    pub(crate) seed: u64,
    pub(crate) limits: Limits,
    pub(crate) bytes: Bytes,
    pub(crate) segments: Segments,
    pub(crate) frames: Frames,
    pub(crate) checksums: Checksums,
    pub(crate) pages: Pages,
    pub(crate) retransmissions: Retransmissions,
    pub(crate) wire: WireCounts,
    pub(crate) time: Time,
    pub(crate) digests: Digests,
    /// What `model_seconds` are, for the table.
    #[serde(skip)]
    pub(crate) device_cpu: &'static str,
    /// What is not as it must be; empty if all is well.
    pub(crate) faults: Vec<String>,
}

/// What bound the sender.
#[derive(Debug, Serialize)]
pub(crate) struct Limits {
    /// Fragments that the device gathers per frame.
    pub(crate) max_fragments: u16,
    /// Bytes of an IP packet.
    pub(crate) mtu: u16,
    /// How far memory is contiguous for the device.
    pub(crate) dma_page: String,
    /// Bytes of a piece, if the input was cut.
    pub(crate) slice: Option<u32>,
    pub(crate) device_checksums: bool,
}

/// Payload bytes, as posted: a retransmission counts again.
#[derive(Debug, Serialize)]
pub(crate) struct Bytes {
    /// Sent in place, from the program's own pages.
    pub(crate) shared: u64,
    /// The same, as the device counted what it fetched from there; QEMU's counts nothing.
    pub(crate) shared_as_fetched: Option<u64>,
    /// Copied: the beginning of a segment, so that the rest could be shared.
    pub(crate) copied_to_rescue: u64,
    /// Copied: too many pieces for the device.
    pub(crate) copied_over_budget: u64,
    /// Copied: the device does not gather.
    pub(crate) copied_no_gather: u64,
    /// Copied: so short that the frame must be padded.
    pub(crate) copied_too_short: u64,
}

/// Segments with payload, as posted.
#[derive(Debug, Serialize)]
pub(crate) struct Segments {
    pub(crate) shared: u64,
    pub(crate) rescued: u64,
    pub(crate) copied: u64,
}

/// Frames of all kinds, acknowledgements and ARP included.
#[derive(Debug, Serialize)]
pub(crate) struct Frames {
    pub(crate) posted: u64,
    /// `[fragments, frames]`, those that occurred.
    pub(crate) by_fragments: Vec<(usize, u64)>,
    /// The most fragments that the device saw in one frame; QEMU's does not tell.
    pub(crate) most_fragments_seen: Option<u32>,
}

/// TCP checksums of segments sent.
#[derive(Debug, Serialize)]
pub(crate) struct Checksums {
    pub(crate) by_device: u64,
    pub(crate) by_cpu: u64,
}

/// Pages of the program that were lent.
#[derive(Debug, Serialize)]
pub(crate) struct Pages {
    /// Bytes of the page in which is counted.
    pub(crate) page: usize,
    pub(crate) pinned_at_most: u64,
    pub(crate) pinned_now: u64,
    /// How long a segment's pages were lent, from its first posting to acknowledgement and
    /// completion, in microseconds of the demo's clock.
    pub(crate) lent_p50_us: f64,
    pub(crate) lent_p99_us: f64,
    /// "virtual" with a model and smoltcp, "real" with the kernel or QEMU.
    pub(crate) clock: &'static str,
}

/// Segments sent again.
#[derive(Debug, Serialize)]
pub(crate) struct Retransmissions {
    pub(crate) segments: u64,
    pub(crate) fast: u64,
    pub(crate) timeouts: u64,
}

/// What the wire did to frames, both directions.
#[derive(Debug, Default, Serialize)]
pub(crate) struct WireCounts {
    pub(crate) lost: u64,
    pub(crate) reordered: u64,
    pub(crate) duplicated: u64,
}

/// Real time, and where the CPU time went.
#[derive(Debug, Serialize)]
pub(crate) struct Time {
    pub(crate) seconds: f64,
    /// Payload, in millions of bytes a second of real time.
    pub(crate) megabytes_per_second: f64,
    /// CPU seconds of driver and sender: everything that a user of the library runs.
    pub(crate) sender_seconds: f64,
    /// The software NIC and the wire; with the kernel as the peer also what the kernel does with
    /// a frame while it is written to the TAP. QEMU is a process of its own and not counted.
    pub(crate) model_seconds: f64,
    /// The receiver, its SHA-256 included.
    pub(crate) peer_seconds: f64,
    /// SHA-256 of what is sent.
    pub(crate) hash_seconds: f64,
}

/// SHA-256 of the stream.
#[derive(Debug, Serialize)]
pub(crate) struct Digests {
    pub(crate) sent: String,
    pub(crate) received: String,
    pub(crate) equal: bool,
}

impl Report {
    /// The report as JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string_pretty(self)
            .unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }

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
            ("frames posted", grouped(frames.posted)),
        ];
        for (fragments, count) in frames.by_fragments.iter().take(MOST_ROWS) {
            let plural = if *fragments == 1 { "" } else { "s" };
            let name = format!("  of {fragments} fragment{plural}");
            rows.push((name, part(*count, frames.posted)));
        }
        if frames.by_fragments.len() > MOST_ROWS {
            let rest: u64 = frames
                .by_fragments
                .iter()
                .skip(MOST_ROWS)
                .map(|(_, count)| count)
                .sum();
            rows.push(("  of more".into(), part(rest, frames.posted)));
        }
        rows.extend(table![
            ("TCP checksums by the device", grouped(checksums.by_device)),
            ("  by the CPU", grouped(checksums.by_cpu)),
            (
                "pages pinned at most",
                format!("{} of {}", grouped(pages.pinned_at_most), size(pages.page))
            ),
            ("  now", grouped(pages.pinned_now)),
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
            ("  received", self.digests.received.clone()),
            ("result", self.verdict()),
        ]);
        rows
    }

    /// One line: whether all is as it must be.
    pub(crate) fn verdict(&self) -> String {
        if self.faults.is_empty() {
            "equal; every page came back".into()
        } else {
            self.faults.join("; ")
        }
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

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
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
fn part(number: u64, whole: u64) -> String {
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

fn size(bytes: usize) -> String {
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
}
