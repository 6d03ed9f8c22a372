//! What the demo found out, and as JSON; `table.rs` has it for people.

use serde::Serialize;

use super::scribble::Scribbling;

/// The whole report. Field names are those of the JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) nic: String,
    /// The device, and what was agreed on with it where that is done.
    pub(crate) opened: String,
    /// How VFIO has the device; null for one in software.
    pub(crate) vfio: Option<Vfio>,
    /// Who wrote to the input while it was sent; null if nobody did.
    pub(crate) scribbling: Option<Scribbling>,
    pub(crate) peer: String,
    pub(crate) input: String,
    /// How the input became reachable for the device, before the first byte was sent.
    pub(crate) input_mapped_by: &'static str,
    pub(crate) seed: u64,
    pub(crate) limits: Limits,
    pub(crate) bytes: Bytes,
    pub(crate) segments: Segments,
    pub(crate) requests: Requests,
    pub(crate) frames: Frames,
    /// What each pair of queues has done.
    pub(crate) queues: Vec<Queue>,
    /// What came of each connection.
    pub(crate) connections: Vec<Connection>,
    pub(crate) arrived: FramesArrived,
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

/// A NIC of this machine.
#[derive(Debug, Serialize)]
pub(crate) struct Vfio {
    /// `cdev` (the device's file, with iommufd) or `group`.
    pub(crate) api: &'static str,
    /// Bytes that are mapped for the device and so pinned: the input (twice where its pages are kept
    /// apart), rings and buffers.
    pub(crate) locked_bytes: u64,
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

/// Frames that the device was asked to cut into segments (TSO).
#[derive(Debug, Serialize)]
pub(crate) struct Requests {
    pub(crate) posted: u64,
    /// Segments to be cut from them.
    pub(crate) segments: u64,
    /// Payload bytes in them.
    pub(crate) bytes: u64,
    /// Those that were ended early, as the device takes no more pieces in a frame.
    pub(crate) ended_by_budget: u64,
}

/// A pair of queues, which has a port and a sender, and with more than one pair a thread, of its
/// own.
#[derive(Debug, Serialize)]
pub(crate) struct Queue {
    pub(crate) queue: usize,
    /// Those that it has sent for.
    pub(crate) connections: usize,
    /// Payload bytes posted; a retransmission counts again.
    pub(crate) bytes: u64,
    /// Frames of all kinds posted.
    pub(crate) frames: u64,
    /// Frames of all kinds received.
    pub(crate) received: u64,
    /// Segments of them for connections of another pair: they were handed over.
    pub(crate) received_for_others: u64,
    /// CPU seconds of driver and sender.
    pub(crate) sender_seconds: f64,
}

/// A connection; all of them carry the whole input.
#[derive(Debug, Serialize)]
pub(crate) struct Connection {
    /// The pair of queues that it was sent on.
    pub(crate) queue: usize,
    /// The sender's port.
    pub(crate) port: u16,
    /// Bytes that have arrived.
    pub(crate) bytes: u64,
    /// SHA-256 of the stream.
    pub(crate) sent: String,
    pub(crate) received: String,
    pub(crate) equal: bool,
}

/// Frames of all kinds at the receiver, as its interface counts them. Where the wire carries what
/// is still to be segmented, that is one.
#[derive(Debug, Serialize)]
pub(crate) struct FramesArrived {
    pub(crate) count: u64,
    /// Bytes, Ethernet header included.
    pub(crate) mean_len: u64,
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

/// Pages of the program that were lent. Each pair of queues counts its own: what two have lent
/// counts twice.
#[derive(Debug, Serialize)]
pub(crate) struct Pages {
    /// Bytes of the page in which is counted.
    pub(crate) page: usize,
    /// The sum of the most that each pair of queues had lent at a time.
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

/// SHA-256 of the streams: where all are equal, that of each; else of the first that is not.
#[derive(Debug, Serialize)]
pub(crate) struct Digests {
    pub(crate) sent: String,
    pub(crate) received: String,
    pub(crate) equal: bool,
}

/// Faults that fit a line.
const SHOWN_FAULTS: usize = 4;

impl Report {
    /// The report as JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string_pretty(self)
            .unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }

    /// One line: whether all is as it must be.
    pub(crate) fn verdict(&self) -> String {
        let faults = &self.faults;
        match faults.get(..SHOWN_FAULTS) {
            _ if faults.is_empty() => "equal; every page came back".into(),
            Some(first) if faults.len() > SHOWN_FAULTS => {
                let more = faults.len() - SHOWN_FAULTS;
                format!(
                    "{}; and {more} more (--json has them all)",
                    first.join("; ")
                )
            }
            _ => faults.join("; "),
        }
    }
}
