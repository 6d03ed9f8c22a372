//! What is found out when a transfer has ended.

use std::time::Duration;

use pagewire::tcp::{ConnectionId, ConnectionStats, LentTimes};
use sha2::Digest;

use super::args::{Args, DmaPage, PeerKind};
use super::machine::{Machine, Seen};
use super::peer::Arrived;
use super::report::{
    Bytes, Checksums, Digests, Frames, FramesArrived, Limits, Pages, Report, Requests,
    Retransmissions, Segments, Time,
};
use super::table::grouped;
use super::transfer::Transfer;
use super::world::{PAGE, World};
use crate::device::{Backend, DeviceName};
use crate::error::{Failure, shown};
use crate::receiver::hex;

impl Transfer<'_> {
    /// Stops everything and reports.
    pub(super) fn report<M: Machine>(
        mut self,
        world: &mut World<M>,
        connection: ConnectionId,
        seconds: f64,
    ) -> Result<Report, Failure> {
        let device = |error| Failure::failed(format!("the NIC: {error}"));
        let stats = world.stack.connection_stats(connection);
        let stats = stats.cloned().unwrap_or_default();
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
        let sent = hex(&std::mem::take(&mut self.hash).finalize());
        let received = arrived
            .as_ref()
            .map_or_else(String::new, |a| a.sha256.clone());
        let digests = Digests {
            equal: sent == received,
            sent,
            received,
        };
        let seen = world.machine.seen();
        let frames = frames(world, seen.most_fragments);
        let fetched = seen.region_bytes;
        let is_whole = arrived.as_ref().is_some_and(|a| a.bytes == self.input.len);
        let limits = limits(self.args, world);
        let faults = faults(
            seen,
            &[
                (digests.equal, "the digests differ"),
                (is_whole, "the lengths differ"),
                (pages.pinned_now == 0, "pages are still pinned"),
            ],
            (stats.shared_bytes, u32::from(limits.max_fragments)),
        );
        Ok(Report {
            nic: self.device.description().into(),
            opened: world.nic.describe().to_string(),
            input_mapped_by: self.device.mapping(),
            device_cpu: device_cpu(self.device, self.args),
            peer: peer_name(self.args.peer).into(),
            input: input_name(self.args, self.input.len),
            seed: self.args.seed,
            limits,
            bytes: bytes(&stats, fetched),
            segments: Segments {
                shared: stats.shared_segments,
                rescued: stats.rescued.segments,
                copied: stats.copied.total().segments,
            },
            requests: requests(&stats),
            frames,
            arrived: frames_arrived(arrived.as_ref()),
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
            time: self.time(world, seconds),
            digests,
            faults,
        })
    }

    fn time<M: Machine>(&self, world: &World<M>, seconds: f64) -> Time {
        Time {
            seconds,
            megabytes_per_second: self.input.len as f64 / seconds / 1e6,
            sender_seconds: self.watch.sender.as_secs_f64(),
            model_seconds: self.watch.model.as_secs_f64(),
            peer_seconds: self.watch.peer.as_secs_f64() + world.peer.foreign_cpu_seconds(),
            hash_seconds: self.watch.hash.as_secs_f64(),
        }
    }
}

/// What is not as it must be. `shared` are the bytes that the sender shared, `limit` the most
/// fragments that a frame may have.
fn faults(seen: Seen, must: &[(bool, &str)], (shared, limit): (u64, u32)) -> Vec<String> {
    let mut faults = seen.violations;
    faults
        .iter_mut()
        .for_each(|text| text.insert_str(0, "violation: "));
    let device = [
        (
            seen.most_fragments.is_none_or(|most| most <= limit),
            "the device saw more fragments in a frame than it takes",
        ),
        (
            seen.region_bytes.is_none_or(|bytes| bytes == shared),
            "the device fetched other bytes than were shared",
        ),
    ];
    let broken = must.iter().chain(&device).filter(|(held, _)| !held);
    faults.extend(broken.map(|(_, text)| (*text).to_owned()));
    faults
}

fn limits<M: Machine>(args: &Args, world: &World<M>) -> Limits {
    let capabilities = world.stack.port().capabilities();
    Limits {
        max_fragments: capabilities.max_fragments,
        mtu: args.mtu,
        dma_page: page_name(args.dma_page).into(),
        slice: args.slice,
        device_checksums: !capabilities.tx_checksum.is_empty(),
    }
}

fn bytes(stats: &ConnectionStats, fetched: Option<u64>) -> Bytes {
    let copied = &stats.copied;
    Bytes {
        shared: stats.shared_bytes,
        shared_as_fetched: fetched,
        copied_to_rescue: stats.rescued.bytes,
        copied_over_budget: copied.over_budget.bytes,
        copied_no_gather: copied.no_gather.bytes,
        copied_too_short: copied.too_short.bytes,
    }
}

fn requests(stats: &ConnectionStats) -> Requests {
    let segmented = &stats.segmented;
    Requests {
        posted: segmented.requests,
        segments: segmented.segments,
        bytes: segmented.bytes,
        ended_by_budget: segmented.ended_by_budget,
    }
}

fn frames_arrived(arrived: Option<&Arrived>) -> FramesArrived {
    let (count, bytes) = arrived.map_or((0, 0), |arrived| (arrived.frames, arrived.frame_bytes));
    FramesArrived {
        count,
        mean_len: bytes.checked_div(count).unwrap_or(0),
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

/// What the CPU time of a step is spent on. A write to the TAP runs the kernel's receive path.
fn device_cpu(device: &DeviceName, args: &Args) -> &'static str {
    match (device.backend, args.peer) {
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
