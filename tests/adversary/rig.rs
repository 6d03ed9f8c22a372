//! A stack on a queue without a device, and segments as the peer writes and reads them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use pagewire::hal::{
    Capabilities, ChecksumOffload, Granule, Instant, MacAddress, PoolLayout, RegionId, RxChecksum,
    TxPort, Verdict,
};
use pagewire::tcp::{ConnectionId, Stack, StackConfig, State};
use pagewire_models::fake::{FakeHandle, FakeTx};
use pagewire_models::{Host, HostConfig, HostMemory};

pub(crate) const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const OUR_IP: [u8; 4] = [10, 0, 0, 1];
pub(crate) const PEER_IP: [u8; 4] = [10, 0, 0, 2];
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// The device vouches for every checksum, so that nonsense gets as deep as it can.
pub(crate) const VOUCHED: RxChecksum = RxChecksum {
    ipv4_header: Verdict::Good,
    transport: Verdict::Good,
};

/// A segment, in either direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segment {
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Segment {
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        if frame[12..14] != [8, 0] {
            return None;
        }
        let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        let tcp = &frame[34..14 + total];
        let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
        let half = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let header = usize::from(tcp[12] >> 4) * 4;
        Some(Self {
            from: half(0),
            to: half(2),
            seq: word(4),
            ack: word(8),
            flags: tcp[13],
            window: half(14),
            options: tcp[20..header].to_vec(),
            payload: tcp[header..].to_vec(),
        })
    }

    /// The first sequence number behind it.
    pub(crate) fn end(&self) -> u32 {
        let flags = u32::from(self.flags & FIN) + u32::from((self.flags & SYN) >> 1);
        self.seq.wrapping_add(self.payload.len() as u32 + flags)
    }

    /// As a frame to us, without checksums.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.truncate(40);
        while !options.len().is_multiple_of(4) {
            options.push(0);
        }
        let total = 40 + options.len() + self.payload.len();
        let mut frame = [OUR_MAC, PEER_MAC].concat();
        frame.extend_from_slice(&[8, 0, 0x45, 0]);
        frame.extend_from_slice(&(total as u16).to_be_bytes());
        frame.extend_from_slice(&[0, 1, 0x40, 0, 64, 6, 0, 0]);
        frame.extend_from_slice(&PEER_IP);
        frame.extend_from_slice(&OUR_IP);
        frame.extend_from_slice(&self.from.to_be_bytes());
        frame.extend_from_slice(&self.to.to_be_bytes());
        frame.extend_from_slice(&self.seq.to_be_bytes());
        frame.extend_from_slice(&self.ack.to_be_bytes());
        frame.extend_from_slice(&[(5 + options.len() as u8 / 4) << 4, self.flags]);
        frame.extend_from_slice(&self.window.to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, 0]);
        frame.extend_from_slice(&options);
        frame.extend_from_slice(&self.payload);
        frame
    }
}

/// The answer to an ARP request for an address on the link; the last byte of it names the card.
pub(crate) fn arp_reply(frame: &[u8]) -> Option<Vec<u8>> {
    if frame[12..14] != [8, 6] || frame[21] != 1 {
        return None;
    }
    let mut reply = [OUR_MAC, PEER_MAC].concat();
    reply.extend_from_slice(&frame[12..20]);
    reply.extend_from_slice(&[0, 2]);
    reply.extend_from_slice(&PEER_MAC);
    reply.extend_from_slice(&frame[38..42]);
    reply.extend_from_slice(&OUR_MAC);
    reply.extend_from_slice(&OUR_IP);
    Some(reply)
}

/// What differs from one rig to the next.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) granule: Granule,
    pub(crate) max_fragments: u16,
    pub(crate) max_fragment_len: u32,
    pub(crate) ring_len: usize,
    pub(crate) small_buffers: usize,
    pub(crate) large_buffers: usize,
    pub(crate) checksum: ChecksumOffload,
    pub(crate) config: StackConfig,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            granule: Granule::from_bytes(4096).unwrap(),
            max_fragments: 16,
            max_fragment_len: 16384,
            ring_len: 1024,
            small_buffers: 64,
            large_buffers: 32,
            checksum: ChecksumOffload::TCP_IPV4 | ChecksumOffload::IPV4_HEADER,
            config: StackConfig {
                mac: MacAddress(OUR_MAC),
                address: Ipv4Addr::from(OUR_IP),
                secret: [7; 16],
                time_wait: Duration::from_secs(2),
                ..StackConfig::default()
            },
        }
    }
}

/// A stack on a queue without a device.
pub(crate) struct Rig {
    pub(crate) host: Host,
    pub(crate) handle: FakeHandle,
    pub(crate) stack: Stack<FakeTx, HostMemory>,
    pub(crate) now: Instant,
    pub(crate) next_call: Option<Instant>,
    pub(crate) buffers: (usize, usize),
}

impl Rig {
    pub(crate) fn new(seed: u64, setup: &Setup) -> Self {
        let host = Host::new(HostConfig {
            seed,
            granule: setup.granule,
        });
        let mut capabilities = Capabilities::minimal();
        capabilities.dma_address_bits = 64;
        capabilities.max_fragments = setup.max_fragments;
        capabilities.max_fragment_len = setup.max_fragment_len;
        capabilities.max_frame_len = u32::from(setup.config.mtu) + 14;
        capabilities.tx_checksum = setup.checksum;
        let (queue, handle) = FakeTx::new(&host, capabilities, setup.ring_len);
        let layout = PoolLayout {
            small_len: 128,
            small_count: setup.small_buffers,
            large_len: usize::from(setup.config.mtu) + 14,
            large_count: setup.large_buffers,
            page: Granule::from_bytes(4096).unwrap(),
        };
        let small = host.allocate(setup.small_buffers.max(1) * 128, 64).unwrap();
        let stride = layout.large_len.next_multiple_of(64);
        let large = host.allocate(setup.large_buffers * stride, 64).unwrap();
        let port = TxPort::with_memory(queue, &layout, small, large).unwrap();
        let buffers = port.vacant_buffers();
        let stack = Stack::new(port, setup.config.clone()).unwrap();
        let now = Instant::from_nanos(1_000_000_000);
        Self {
            host,
            handle,
            stack,
            now,
            next_call: None,
            buffers,
        }
    }

    pub(crate) fn region(&mut self, bytes: &[u8]) -> RegionId {
        let region = self.host.register(bytes.to_vec()).unwrap();
        self.stack.register(region).unwrap()
    }

    pub(crate) fn give(&mut self, frame: &[u8]) {
        self.stack.input(self.now, frame, VOUCHED);
    }

    pub(crate) fn loans(&self) -> u64 {
        self.stack.port().ledger().counters().loans
    }

    /// Polls, answers ARP, and returns what was sent; the device completes nothing.
    pub(crate) fn poll(&mut self) -> Vec<Segment> {
        self.next_call = self.stack.poll(self.now).unwrap();
        let mut segments = Vec::new();
        for frame in self.handle.take_frames() {
            match arp_reply(&frame.bytes) {
                Some(reply) => self.give(&reply),
                None => segments.extend(Segment::parse(&frame.bytes)),
            }
        }
        segments
    }

    /// Polls, with a device that completes at once, until nothing more is sent.
    pub(crate) fn settle(&mut self) -> Vec<Segment> {
        let mut all = Vec::new();
        for _ in 0..1000 {
            let sent = self.poll();
            if self.handle.complete_all() == 0 && sent.is_empty() {
                return all;
            }
            all.extend(sent);
        }
        panic!("it never ends");
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    pub(crate) fn connect(&mut self, port: u16) -> ConnectionId {
        let remote = SocketAddrV4::new(PEER_IP.into(), port);
        self.stack.connect(self.now, remote, None).unwrap()
    }

    /// An established connection, and the segment with which the peer would go on.
    pub(crate) fn established(&mut self, window: u16, options: &[u8]) -> (ConnectionId, Segment) {
        let id = self.connect(80);
        let syn = self.settle().pop().unwrap();
        let mut peer = Segment {
            from: 80,
            to: syn.from,
            seq: 5000,
            ack: syn.end(),
            flags: SYN | ACK,
            window,
            options: options.to_vec(),
            payload: Vec::new(),
        };
        self.give(&peer.frame());
        self.settle();
        assert_eq!(self.stack.state(id), Some(State::Established));
        peer.flags = ACK;
        peer.seq += 1;
        peer.options.clear();
        (id, peer)
    }

    /// All that was lent is back, and everything that the port has of its own.
    pub(crate) fn assert_empty(&mut self, text: &str) {
        self.handle.set_down(false);
        self.handle.reset_all();
        self.settle();
        let port = self.stack.port();
        let counters = port.ledger().counters();
        assert_eq!((counters.loans, counters.pinned_pages), (0, 0), "{text}");
        assert_eq!(
            (counters.strays, port.counters().stray_tokens),
            (0, 0),
            "{text}"
        );
        assert_eq!(
            (port.outstanding(), port.vacant_buffers()),
            (0, self.buffers),
            "{text}"
        );
        self.assert_clean(text);
    }

    pub(crate) fn assert_clean(&self, text: &str) {
        let violations = self.handle.violations();
        assert!(violations.is_empty(), "{text}: {violations:?}");
    }
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// `ADVERSARY_SEEDS=100000 cargo test --release --test adversary` goes on for longer.
pub(crate) fn seeds(usual: u64) -> std::ops::Range<u64> {
    let wanted = std::env::var("ADVERSARY_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok());
    let first = std::env::var("ADVERSARY_FIRST")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    first..first + wanted.unwrap_or(usual)
}
