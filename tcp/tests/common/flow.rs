//! A connection to a device that segments, with data to send on it.

use pagewire_hal::RegionId;
use pagewire_tcp::{ConnectionId, ConnectionStats};

use super::{Peer, PeerOptions, Segment, Setup, World, pattern, segmentation};

pub(crate) const MSS: usize = 1460;
/// Segments in the longest request: what an IPv4 packet holds.
pub(crate) const LONGEST: usize = (65535 - 40) / MSS;

pub(crate) fn setup() -> Setup {
    Setup {
        max_fragments: 64,
        segmentation: Some(segmentation(true)),
        ..Setup::default()
    }
}

pub(crate) fn wide() -> PeerOptions {
    PeerOptions {
        scale: Some(7),
        window: 60_000,
        sack: true,
        ..PeerOptions::default()
    }
}

pub(crate) struct Flow {
    pub(crate) w: World,
    pub(crate) id: ConnectionId,
    pub(crate) peer: Peer,
    pub(crate) region: RegionId,
    pub(crate) bytes: Vec<u8>,
}

impl Flow {
    pub(crate) fn new(setup: &Setup, options: PeerOptions) -> Self {
        let mut w = World::new(setup);
        let (id, peer) = w.established(options);
        let bytes = pattern(1 << 20, 1);
        let region = w.region(bytes.clone());
        Self {
            w,
            id,
            peer,
            region,
            bytes,
        }
    }

    /// A connection whose congestion window has grown to some hundred KiB, nothing in flight.
    pub(crate) fn open(setup: &Setup, options: PeerOptions) -> Self {
        let mut flow = Self::new(setup, options);
        flow.w.send_all(flow.id, flow.region, 1 << 20, 0);
        flow.deliver();
        assert!(flow.w.stack.completion(flow.w.now, flow.id).is_some());
        flow.w.handle.take_requests();
        flow
    }

    /// Lets everything arrive, each segment acknowledged by itself; returns the bytes.
    pub(crate) fn deliver(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let sent = self.w.pump();
            if sent.is_empty() {
                return bytes;
            }
            for segment in sent {
                bytes.extend(self.peer.take(&[segment]));
                let ack = self.peer.ack();
                self.w.give(&ack);
            }
        }
    }

    pub(crate) fn send(&mut self, len: usize) {
        self.w.send_all(self.id, self.region, len, 1);
    }

    /// `count` segments of full length in flight, posted as one request.
    pub(crate) fn in_flight(
        setup: &Setup,
        options: PeerOptions,
        count: usize,
    ) -> (Self, Vec<Segment>) {
        let mut flow = Self::open(setup, options);
        flow.send(count * MSS);
        let sent = flow.w.pump();
        assert_eq!(sent.len(), count);
        assert_eq!(flow.w.handle.take_requests().len(), 1);
        (flow, sent)
    }

    pub(crate) fn stats(&self) -> ConnectionStats {
        self.w.stack.connection_stats(self.id).unwrap().clone()
    }
}

pub(crate) fn numbers(segments: &[Segment]) -> Vec<u32> {
    segments.iter().map(|s| s.seq).collect()
}
