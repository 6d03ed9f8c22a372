//! The whole stack on a queue that reads nothing: what the two measurements share.
#![allow(dead_code)] // not both use all of it

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant as Clock};

use pagewire_hal::{
    Capabilities, ChecksumOffload, DomainId, Granule, Instant, MacAddress, PoolLayout, PostError,
    QueueError, RegionId, RxChecksum, Segmentation, Token, TxFrame, TxPort, TxQueue, Verdict,
};
use pagewire_models::host::{Host, HostConfig, HostMemory};
use pagewire_tcp::seq::SeqNumber;
use pagewire_tcp::wire::{
    ArpOperation, ArpPacket, ChecksumBy, ETHERTYPE_ARP, ETHERTYPE_IPV4, EthernetHeader, Ipv4Header,
    PROTOCOL_TCP, TcpFlags, TcpHeader, TcpOptions,
};
use pagewire_tcp::{ConnectionId, Slice, Stack, StackConfig};

const OUR_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const PEER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const OUR_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Frames that stay in the ring: so many buffers are in use in turn, as with a device.
const IN_RING: usize = 256;

/// A queue that reads nothing, and is done with all but the last frames.
pub(crate) struct Sink {
    capabilities: Capabilities,
    domain: DomainId,
    done: Vec<Token>,
    /// What the last frame told: the peer's way of knowing our numbers.
    bytes: u64,
}

// SAFETY: no address is ever read, so every token may be handed back at any time; each is handed
// back once, as it is taken out of `done`; the domain never changes.
unsafe impl TxQueue for Sink {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn domain(&self) -> DomainId {
        self.domain
    }

    unsafe fn post(&mut self, frame: &TxFrame<'_>, token: Token) -> Result<(), PostError> {
        let len = frame
            .check(&self.capabilities)
            .map_err(PostError::Refused)?;
        self.bytes += u64::from(len);
        self.done.push(token);
        Ok(())
    }

    fn doorbell(&mut self) {}

    fn reclaim(&mut self, done: &mut impl FnMut(Token)) -> Result<usize, QueueError> {
        let count = self.done.len().saturating_sub(IN_RING);
        self.done.drain(..count).for_each(done);
        Ok(count)
    }

    fn has_room(&self, _fragments: usize) -> bool {
        true
    }

    fn outstanding(&self) -> usize {
        self.done.len()
    }
}

/// What is measured.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) slices: &'static [usize],
    pub(crate) mtu: u16,
    pub(crate) max_fragments: u16,
    pub(crate) mss: u16,
    pub(crate) share_min: usize,
    pub(crate) segmentation: Option<Segmentation>,
}

/// A connection, its window open.
pub(crate) struct Run {
    pub(crate) stack: Stack<Sink, HostMemory>,
    pub(crate) id: ConnectionId,
    now: Instant,
    peer_seq: SeqNumber,
    first: SeqNumber,
    acked: u64,
    local: SocketAddrV4,
}

fn frame(local: SocketAddrV4, header: TcpHeader) -> Vec<u8> {
    let mut frame = vec![0; 54 + header.header_len() - 20];
    let ethernet = EthernetHeader {
        destination: OUR_MAC,
        source: PEER_MAC,
        ethertype: ETHERTYPE_IPV4,
    };
    let ip = Ipv4Header {
        source: PEER_IP,
        destination: *local.ip(),
        protocol: PROTOCOL_TCP,
        total_len: (20 + header.header_len()) as u16,
        identification: 0,
        ttl: 64,
        dont_fragment: true,
    };
    ethernet.emit(&mut frame);
    ip.emit(&mut frame[14..], ChecksumBy::Cpu);
    header.emit(&mut frame[34..]);
    frame
}

impl Run {
    pub(crate) fn new(case: &Case, checksum: ChecksumOffload, host: &Host) -> Self {
        let mut capabilities = Capabilities::minimal();
        capabilities.dma_address_bits = 64;
        capabilities.max_fragments = case.max_fragments;
        capabilities.max_fragment_len = 16384;
        capabilities.max_frame_len = 9728;
        capabilities.tx_checksum = checksum;
        capabilities.segmentation = case.segmentation;
        let sink = Sink {
            capabilities,
            domain: host.domain(),
            done: Vec::with_capacity(4096),
            bytes: 0,
        };
        let layout = PoolLayout {
            small_len: 128,
            small_count: 2048,
            large_len: usize::from(case.mtu) + 14,
            large_count: 2048,
            page: Granule::from_bytes(4096).expect("a power of two"),
        };
        let small = host.allocate(2048 * 128, 4096).expect("memory");
        let large = host.allocate(2048 * 9216, 4096).expect("memory");
        let port = TxPort::with_memory(sink, &layout, small, large).expect("one domain");
        let config = StackConfig {
            mac: OUR_MAC,
            address: OUR_IP,
            share_min: case.share_min,
            mtu: case.mtu,
            send_limit: 1 << 20,
            ..StackConfig::default()
        };
        let mut stack = Stack::new(port, config).expect("a valid configuration");
        let now = Instant::from_nanos(1);
        let remote = SocketAddrV4::new(PEER_IP, 80);
        let id = stack.connect(now, remote, Some(5000)).expect("a route");
        let local = SocketAddrV4::new(OUR_IP, 5000);
        stack.poll(now).expect("the queue is up");
        stack.input(now, &arp_reply(), RxChecksum::default());
        stack.poll(now).expect("the queue is up");
        // The peer cannot see the SYN, as nothing is read: the generator tells its number.
        let isn = pagewire_tcp::isn::IsnGenerator::new([0; 16]);
        let first = isn.isn(now, local, remote).add(1);
        let mut run = Self {
            stack,
            id,
            now,
            peer_seq: SeqNumber(1),
            first,
            acked: 0,
            local,
        };
        let options = TcpOptions {
            mss: Some(case.mss),
            window_scale: Some(10),
            ..TcpOptions::default()
        };
        run.give(TcpFlags::SYN | TcpFlags::ACK, options);
        run.peer_seq = run.peer_seq.add(1);
        run
    }

    fn give(&mut self, flags: TcpFlags, options: TcpOptions) {
        let header = TcpHeader {
            source_port: 80,
            destination_port: 5000,
            seq: self.peer_seq,
            ack: self.first.add(self.acked as u32),
            flags,
            window: 60_000,
            options,
        };
        let vouched = RxChecksum {
            ipv4_header: Verdict::Good,
            transport: Verdict::Good,
        };
        let frame = frame(self.local, header);
        self.stack.input(self.now, &frame, vouched);
    }

    /// Sends `slices` to the end, in batches of about 64 KiB, and returns the time it took.
    pub(crate) fn send(&mut self, slices: &[Slice], per_batch: usize) -> Duration {
        let start = Clock::now();
        let mut target = self.acked;
        for batch in slices.chunks(per_batch) {
            let len: usize = batch.iter().map(|slice| slice.len).sum();
            let accepted = self.stack.send(self.id, batch, 0);
            assert_eq!(accepted, Ok(len), "the limit is above a batch");
            target += len as u64;
            while self.acked < target {
                self.now = self.now + Duration::from_micros(50);
                self.stack.poll(self.now).expect("the queue is up");
                let stats = self.stack.connection_stats(self.id).expect("it is open");
                assert!(stats.data.bytes > self.acked, "nothing was sent");
                // Nothing is lost, so what was posted is what was sent.
                self.acked = stats.data.bytes;
                self.give(TcpFlags::ACK, TcpOptions::default());
            }
            while self.stack.completion(self.now, self.id).is_some() {}
        }
        start.elapsed()
    }
}

/// The slices of a case, over and over, as far as the region goes.
pub(crate) fn slices(case: &Case, region: RegionId, region_len: usize) -> Vec<Slice> {
    let mut slices = Vec::new();
    let mut start = 0;
    for len in case.slices.iter().copied().cycle() {
        if start + len > region_len {
            break;
        }
        slices.push(Slice { region, start, len });
        // A gap, so that no two are neighbours.
        start += len + 64;
    }
    slices
}

/// Nanoseconds per KiB of payload.
pub(crate) fn measure(
    case: &Case,
    checksum: ChecksumOffload,
    region_len: usize,
    rounds: usize,
) -> f64 {
    let host = Host::new(HostConfig {
        seed: 1,
        granule: Granule::CONTIGUOUS,
    });
    let mut run = Run::new(case, checksum, &host);
    let region = host.register(vec![0x55u8; region_len]).expect("memory");
    let region = run.stack.register(region).expect("one domain");
    let slices = slices(case, region, region_len);
    let bytes: usize = slices.iter().map(|slice| slice.len).sum();
    let per_batch = (65536 * slices.len() / bytes).max(1);
    let mut times: Vec<f64> = (0..=rounds)
        .map(|_| run.send(&slices, per_batch).as_secs_f64())
        .skip(1)
        .collect();
    times.sort_by(f64::total_cmp);
    // The least disturbed round.
    times[0] * 1e9 / (bytes as f64 / 1024.0)
}

fn arp_reply() -> Vec<u8> {
    let mut frame = vec![0; 42];
    let ethernet = EthernetHeader {
        destination: OUR_MAC,
        source: PEER_MAC,
        ethertype: ETHERTYPE_ARP,
    };
    let packet = ArpPacket {
        operation: ArpOperation::Reply,
        sender_mac: PEER_MAC,
        sender_ip: PEER_IP,
        target_mac: OUR_MAC,
        target_ip: OUR_IP,
    };
    ethernet.emit(&mut frame);
    packet.emit(&mut frame[14..]);
    frame
}
