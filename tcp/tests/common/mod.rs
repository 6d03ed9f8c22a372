//! A stack on a transmit queue without a device, and a plain peer that knows nothing of the
//! crate's own parsers and sums.
#![allow(dead_code)] // not every test uses every helper

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use pagewire_hal::{
    Capabilities, ChecksumOffload, Granule, Instant, MacAddress, PoolLayout, RegionId, RxChecksum,
    Segmentation, TxPort,
};
use pagewire_models::host::{Host, HostConfig, HostMemory};
use pagewire_tcp::{ConnectionId, Slice, Stack, StackConfig};

pub(crate) mod flow;
pub(crate) mod guarded;
pub(crate) mod lent;
pub(crate) mod segment;
pub(crate) mod segmenting;
#[allow(unused_imports)] // as above
pub(crate) use segment::{ACK, FIN, PSH, RST, SYN, Segment, arp_reply, parse_arp_request};
use segmenting::{SegmentingHandle, SegmentingTx};

pub(crate) const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const OUR_IP: [u8; 4] = [10, 0, 0, 1];
pub(crate) const PEER_IP: [u8; 4] = [10, 0, 0, 2];

/// How a world is made.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) granule: Granule,
    pub(crate) max_fragments: u16,
    pub(crate) max_fragment_len: u32,
    pub(crate) min_frame_len: u32,
    pub(crate) checksum: ChecksumOffload,
    pub(crate) ring_len: usize,
    pub(crate) large_buffers: usize,
    pub(crate) segmentation: Option<Segmentation>,
    pub(crate) config: StackConfig,
}

/// Segmentation of IPv4 with the limits of most devices.
pub(crate) fn segmentation(seed_has_length: bool) -> Segmentation {
    let mut limits = Segmentation::new(65535, 192);
    limits.ipv4 = true;
    limits.seed_has_length = seed_has_length;
    limits
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            granule: Granule::from_bytes(4096).unwrap(),
            max_fragments: 16,
            max_fragment_len: 16384,
            min_frame_len: 17,
            checksum: ChecksumOffload::TCP_IPV4 | ChecksumOffload::IPV4_HEADER,
            ring_len: 1024,
            large_buffers: 64,
            segmentation: None,
            config: StackConfig {
                mac: MacAddress(OUR_MAC),
                address: Ipv4Addr::from(OUR_IP),
                time_wait: Duration::from_secs(10),
                max_retries: 4,
                secret: [7; 16],
                nagle: false,
                ..StackConfig::default()
            },
        }
    }
}

pub(crate) struct World {
    pub(crate) host: Host,
    pub(crate) handle: SegmentingHandle,
    pub(crate) stack: Stack<SegmentingTx, HostMemory>,
    pub(crate) now: Instant,
    /// Frames complete as soon as they are sent.
    pub(crate) completes: bool,
    pub(crate) answers_arp: bool,
    pub(crate) next_call: Option<Instant>,
    pub(crate) max_fragments_seen: usize,
}

impl World {
    pub(crate) fn new(setup: &Setup) -> Self {
        let host = Host::new(HostConfig {
            seed: setup.seed,
            granule: setup.granule,
        });
        let mut capabilities = Capabilities::minimal();
        capabilities.dma_address_bits = 64;
        capabilities.max_fragments = setup.max_fragments;
        capabilities.max_fragment_len = setup.max_fragment_len;
        capabilities.min_frame_len = setup.min_frame_len;
        capabilities.max_frame_len = 9728;
        capabilities.tx_checksum = setup.checksum;
        capabilities.segmentation = setup.segmentation;
        let (queue, handle) = SegmentingTx::new(&host, capabilities, setup.ring_len);
        let layout = PoolLayout {
            small_len: 128,
            small_count: 256,
            large_len: usize::from(setup.config.mtu) + 14,
            large_count: setup.large_buffers,
            page: Granule::from_bytes(4096).unwrap(),
        };
        let small = host.allocate(256 * 128, 64).unwrap();
        let stride = (layout.large_len + 64).next_multiple_of(64);
        let large = host.allocate(setup.large_buffers * stride, 64).unwrap();
        let port = TxPort::with_memory(queue, &layout, small, large).unwrap();
        let stack = Stack::new(port, setup.config.clone()).unwrap();
        Self {
            host,
            handle,
            stack,
            now: Instant::from_nanos(1_000_000_000),
            completes: true,
            answers_arp: true,
            next_call: None,
            max_fragments_seen: 0,
        }
    }

    /// Registers bytes with the stack.
    pub(crate) fn region(&mut self, bytes: Vec<u8>) -> RegionId {
        let region = self.host.register(bytes).unwrap();
        self.stack.register(region).unwrap()
    }

    pub(crate) fn shared_region(&mut self, bytes: &Arc<[u8]>) -> RegionId {
        let region = self.host.register(Arc::clone(bytes)).unwrap();
        self.stack.register(region).unwrap()
    }

    pub(crate) fn give(&mut self, frame: &[u8]) {
        self.stack.input(self.now, frame, RxChecksum::default());
    }

    pub(crate) fn poll(&mut self) {
        self.next_call = self.stack.poll(self.now).unwrap();
    }

    /// Polls, answers ARP, and returns the segments sent, each checked for its checksums.
    pub(crate) fn pump(&mut self) -> Vec<Segment> {
        let mut segments = Vec::new();
        loop {
            self.poll();
            let frames = self.handle.take_frames();
            if self.completes {
                self.handle.complete_all();
            }
            if frames.is_empty() {
                let violations = self.handle.violations();
                assert!(violations.is_empty(), "{violations:?}");
                return segments;
            }
            for frame in frames {
                self.max_fragments_seen = self.max_fragments_seen.max(frame.fragments);
                if let Some(ip) = parse_arp_request(&frame.bytes) {
                    if ip == PEER_IP && self.answers_arp {
                        self.give(&arp_reply());
                    }
                } else {
                    segments.push(Segment::parse(&frame.bytes));
                }
            }
        }
    }

    /// As `pump`, for frames to anybody: they are only counted.
    pub(crate) fn drain(&mut self) -> usize {
        let mut count = 0;
        loop {
            self.poll();
            let frames = self.handle.take_frames();
            self.handle.complete_all();
            if frames.is_empty() {
                let violations = self.handle.violations();
                assert!(violations.is_empty(), "{violations:?}");
                return count;
            }
            count += frames.len();
        }
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Moves the clock to when the stack wants to be called.
    pub(crate) fn skip_to_next_call(&mut self) {
        self.now = self.now.max(self.next_call.expect("nothing is waited for"));
    }

    pub(crate) fn pinned(&self) -> u64 {
        self.stack.port().ledger().counters().pinned_pages
    }

    pub(crate) fn loans(&self) -> u64 {
        self.stack.port().ledger().counters().loans
    }

    /// A SYN on its way to the peer's `port`, and the peer that has seen it.
    pub(crate) fn connect(&mut self, port: u16) -> (ConnectionId, Peer) {
        let remote = SocketAddrV4::new(Ipv4Addr::from(PEER_IP), port);
        let id = self.stack.connect(self.now, remote, None).unwrap();
        let sent = self.pump();
        assert_eq!(sent.len(), 1, "{sent:?}");
        assert_eq!(sent[0].flags, SYN);
        (id, Peer::new(&sent[0]))
    }

    /// An established connection.
    pub(crate) fn established(&mut self, options: PeerOptions) -> (ConnectionId, Peer) {
        let (id, mut peer) = self.connect(80);
        peer.options = options;
        let syn_ack = peer.syn(ACK);
        self.give(&syn_ack);
        let sent = self.pump();
        assert_eq!(sent.len(), 1, "{sent:?}");
        assert_eq!(sent[0].flags & !PSH, ACK);
        assert!(self.stack.is_established(id));
        (id, peer)
    }

    pub(crate) fn send_all(&mut self, id: ConnectionId, region: RegionId, len: usize, tag: u64) {
        let slice = Slice {
            region,
            start: 0,
            len,
        };
        assert_eq!(self.stack.send(id, &[slice], tag), Ok(len));
    }
}

/// What the peer offers in its SYN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerOptions {
    pub(crate) mss: Option<u16>,
    pub(crate) scale: Option<u8>,
    pub(crate) sack: bool,
    pub(crate) timestamps: bool,
    pub(crate) window: u16,
}

impl Default for PeerOptions {
    fn default() -> Self {
        Self {
            mss: Some(1460),
            scale: None,
            sack: false,
            timestamps: false,
            window: 65535,
        }
    }
}

/// The other end: as much state as tests need, kept by hand.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) port: u16,
    pub(crate) their_port: u16,
    /// Next sequence number to send.
    pub(crate) seq: u32,
    /// Next sequence number expected.
    pub(crate) ack: u32,
    pub(crate) options: PeerOptions,
    /// Timestamp to echo.
    pub(crate) echo: u32,
    pub(crate) clock: u32,
}

impl Peer {
    /// The peer of a SYN.
    pub(crate) fn new(syn: &Segment) -> Self {
        Self {
            port: syn.destination_port,
            their_port: syn.source_port,
            seq: 0xffff_ff00,
            ack: syn.seq.wrapping_add(1),
            options: PeerOptions::default(),
            echo: syn.timestamps.map_or(0, |t| t.0),
            clock: 1000,
        }
    }

    /// The peer that opens a connection to `port`.
    pub(crate) fn opening(port: u16) -> Self {
        Self {
            port: 4000,
            their_port: port,
            seq: 5000,
            ack: 0,
            options: PeerOptions::default(),
            echo: 0,
            clock: 1000,
        }
    }

    fn base(&self, flags: u8) -> Segment {
        Segment {
            source_port: self.port,
            destination_port: self.their_port,
            seq: self.seq,
            ack: if flags & ACK != 0 { self.ack } else { 0 },
            flags,
            window: self.options.window,
            timestamps: self.options.timestamps.then_some((self.clock, self.echo)),
            ..Segment::default()
        }
    }

    /// Our SYN, with `flags` beside it; it takes its sequence number.
    pub(crate) fn syn(&mut self, flags: u8) -> Vec<u8> {
        let segment = Segment {
            mss: self.options.mss,
            scale: self.options.scale,
            sack_permitted: self.options.sack,
            ..self.base(SYN | flags)
        };
        self.seq = self.seq.wrapping_add(1);
        segment.frame()
    }

    pub(crate) fn ack(&self) -> Vec<u8> {
        self.base(ACK).frame()
    }

    pub(crate) fn ack_at(&self, ack: u32) -> Vec<u8> {
        Segment {
            ack,
            ..self.base(ACK)
        }
        .frame()
    }

    pub(crate) fn sack(&self, ack: u32, blocks: &[(u32, u32)]) -> Vec<u8> {
        Segment {
            ack,
            sack: blocks.to_vec(),
            ..self.base(ACK)
        }
        .frame()
    }

    pub(crate) fn data(&mut self, payload: &[u8], flags: u8) -> Vec<u8> {
        let segment = Segment {
            payload: payload.to_vec(),
            ..self.base(ACK | flags)
        };
        let fin = u32::from(flags & FIN != 0);
        self.seq = self.seq.wrapping_add(payload.len() as u32 + fin);
        segment.frame()
    }

    /// A bare segment with any flags and sequence number.
    pub(crate) fn bare(&self, flags: u8, seq: u32) -> Vec<u8> {
        Segment {
            seq,
            ..self.base(flags)
        }
        .frame()
    }

    /// Takes what was sent in order; returns the payload.
    pub(crate) fn take(&mut self, segments: &[Segment]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for segment in segments {
            if segment.seq == self.ack {
                self.ack = segment.end();
                bytes.extend_from_slice(&segment.payload);
                if let Some((value, _)) = segment.timestamps {
                    self.echo = value;
                }
            }
        }
        bytes
    }
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| random.u8(..)).collect()
}
