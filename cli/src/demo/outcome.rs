//! What is found out when a transfer has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use pagewire::hal::{Granule, Nic};
use pagewire::tcp::{ConnectionStats, LentTimes};

use super::args::{Args, PeerKind};
use super::lane::{Feed, Lane};
use super::machine::{Machine, Seen};
use super::peer::Arrived;
use super::report::{
    Bytes, Checksums, Connection, Digests, Frames, FramesArrived, Limits, Pages, Queue, Report,
    Requests, Retransmissions, Segments, Time, WireCounts,
};
use super::scribble::Scribbling;
use super::table::{grouped, size};
use super::transfer::Transfer;
use super::world::{PAGE, World};
use crate::error::{Failure, shown};

impl Transfer<'_> {
    /// Stops everything and reports.
    pub(super) fn report<M: Machine>(
        self,
        world: &mut World<M>,
        seconds: f64,
    ) -> Result<Report, Failure> {
        let device = |error| Failure::failed(format!("the NIC: {error}"));
        let mut stats = ConnectionStats::default();
        for lane in &world.lanes {
            stats.join(&lane.stack.stats().connections);
        }
        // Before the connections are removed and the device stopped: both give back whatever is
        // left, and would hide a page that acknowledgement and completion did not release.
        let pages = pages(world, &stats.lent);
        let now = world.now();
        for lane in &mut world.lanes {
            lane.remove_connections(now);
        }
        world.shut_down().map_err(device)?;
        world.cable.finish()?;
        let arrived = world.arrived()?;
        let connections = connections(world, arrived.as_ref());
        let digests = digests(&connections, self.args.scribble.is_some());
        let seen = world.machine.seen();
        let frames = frames(world, seen.most_fragments);
        let fetched = seen.region_bytes;
        let is_whole = connections.iter().all(|c| c.bytes == self.input.len);
        let limits = limits(self.args, world);
        let moved = stats.copied_early.written;
        let all_lent = world.scribble.is_none() || stats.copied_early.total() == moved;
        let scribbling = world
            .scribble
            .as_ref()
            .map(|scribble| scribble.finish(moved, pages.pinned_now == 0));
        let kept = scribbling
            .as_ref()
            .is_none_or(|scribbling| scribbling.no_write_lost);
        let patient = scribbling
            .as_ref()
            .is_none_or(Scribbling::kernel_was_patient);
        let faults = faults(
            seen,
            &[
                (digests.equal, "the digests differ"),
                (is_whole, "the lengths differ"),
                (pages.pinned_now == 0, "pages are still pinned"),
                (kept, "a write to what was lent is lost"),
                (
                    patient,
                    "a system call that writes to what was lent has failed",
                ),
                // Its digest is made of what is lent.
                (
                    all_lent,
                    "bytes that should have been lent were copied at once",
                ),
            ],
            (stats.shared_bytes, u32::from(limits.max_fragments)),
        );
        Ok(Report {
            nic: world.about.device.clone(),
            opened: world.nic.describe().to_string(),
            input_mapped_by: world.about.mapping,
            device_cpu: world.about.cpu,
            vfio: world.machine.vfio(),
            scribbling,
            peer: peer_name(self.args),
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
            queues: world.lanes.iter().map(queue).collect(),
            connections,
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
            wire: wire(world, arrived.as_ref()),
            time: self.time(world, seconds),
            digests,
            faults,
        })
    }

    fn time<M: Machine>(&self, world: &World<M>, seconds: f64) -> Time {
        let lanes = |time: fn(&Lane<M>) -> Duration| {
            let all: Duration = world.lanes.iter().map(time).sum();
            all.as_secs_f64()
        };
        Time {
            seconds,
            megabytes_per_second: self.total as f64 / seconds / 1e6,
            sender_seconds: lanes(|lane| lane.watch.sender),
            model_seconds: self.watch.model.as_secs_f64(),
            peer_seconds: self.watch.peer.as_secs_f64() + world.peer.foreign_cpu_seconds(),
            hash_seconds: lanes(|lane| lane.watch.hash),
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
    let capabilities = world.nic.capabilities();
    Limits {
        max_fragments: capabilities.max_fragments,
        mtu: args.mtu,
        dma_page: page_name(world.granule()),
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

/// What the cable did, and what its ends did in its place.
fn wire<M: Machine>(world: &World<M>, arrived: Option<&Arrived>) -> WireCounts {
    let mut counts = world.cable.counts();
    counts.lost += world.lanes.iter().map(Lane::lost).sum::<u64>();
    counts.lost += arrived.map_or(0, |arrived| arrived.lost);
    counts
}

fn frames_arrived(arrived: Option<&Arrived>) -> FramesArrived {
    let (count, bytes) = arrived.map_or((0, 0), |arrived| (arrived.frames, arrived.frame_bytes));
    FramesArrived {
        count,
        mean_len: bytes.checked_div(count).unwrap_or(0),
    }
}

fn pages<M: Machine>(world: &World<M>, lent: &LentTimes) -> Pages {
    let ledgers = world
        .lanes
        .iter()
        .map(|lane| lane.stack.port().ledger().counters());
    let (mut peak, mut now) = (0, 0);
    for ledger in ledgers {
        peak += ledger.pinned_pages_peak;
        now += ledger.pinned_pages;
    }
    let micros = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64() * 1e6;
    Pages {
        page: PAGE,
        pinned_at_most: peak,
        pinned_now: now,
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
    let mut posted = 0;
    let mut by_fragments = BTreeMap::<_, u64>::new();
    for lane in &world.lanes {
        let counters = lane.stack.port().counters();
        posted += counters.frames;
        for (fragments, count) in counters.by_fragments.iter().copied().enumerate() {
            *by_fragments.entry(fragments).or_default() += count;
        }
    }
    let counts = by_fragments.into_iter();
    Frames {
        posted,
        by_fragments: counts.filter(|(_, count)| *count > 0).collect(),
        most_fragments_seen,
    }
}

fn queue<M: Machine>(lane: &Lane<M>) -> Queue {
    Queue {
        queue: lane.index,
        connections: lane.feeds.len(),
        bytes: lane.stack.stats().connections.data.bytes,
        frames: lane.stack.port().counters().frames,
        received: lane.received,
        received_for_others: lane.misdirected,
        sender_seconds: lane.watch.sender.as_secs_f64(),
    }
}

/// What was sent on each connection, and what has arrived.
fn connections<M: Machine>(world: &World<M>, arrived: Option<&Arrived>) -> Vec<Connection> {
    let streams = arrived.map_or(&[][..], |arrived| &arrived.streams);
    let feeds = world.lanes.iter().flat_map(|lane| {
        let feeds = lane.feeds.iter();
        feeds.map(|feed| (lane.index, feed))
    });
    let connection = |(queue, feed): (usize, &Feed)| {
        let stream = streams.iter().find(|stream| stream.port == feed.port);
        let sent = feed.digest();
        let received = stream.map_or_else(String::new, |stream| stream.sha256.clone());
        Connection {
            queue,
            port: feed.port,
            bytes: stream.map_or(0, |stream| stream.bytes),
            equal: sent == received,
            sent,
            received,
        }
    };
    feeds.map(connection).collect()
}

/// Each connection carries the same bytes, unless somebody writes to them meanwhile.
fn digests(connections: &[Connection], is_written: bool) -> Digests {
    let sent = connections.first().map_or("", |first| &first.sent);
    let differs = |c: &&Connection| !c.equal || (c.sent != sent && !is_written);
    let wrong = connections.iter().find(differs);
    let shown = wrong.or(connections.first());
    Digests {
        equal: wrong.is_none() && shown.is_some(),
        sent: shown.map_or_else(String::new, |c| c.sent.clone()),
        received: shown.map_or_else(String::new, |c| c.received.clone()),
    }
}

fn peer_name(args: &Args) -> String {
    match (args.peer(), &args.peer_interface) {
        (PeerKind::Smoltcp, _) => "smoltcp's TCP, in this process".into(),
        (PeerKind::Linux, None) => "the kernel's TCP, over a TAP in a network namespace".into(),
        (PeerKind::Linux, Some(interface)) => {
            format!("the kernel's TCP, behind {interface} in a network namespace")
        }
    }
}

fn page_name(granule: Granule) -> String {
    if granule == Granule::CONTIGUOUS {
        return "contiguous".into();
    }
    size(granule.bytes())
}

fn input_name(args: &Args, len: u64) -> String {
    match &args.file {
        Some(path) => format!("{} bytes of {}", grouped(len), shown(path)),
        None => format!("{} bytes, generated from seed {}", grouped(len), args.seed),
    }
}
