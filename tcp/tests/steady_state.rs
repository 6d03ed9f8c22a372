//! In a steady flow nothing is allocated per segment: a counting allocator, a queue that
//! allocates nothing by itself, and a peer that acknowledges everything.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use common::{ACK, OUR_IP, OUR_MAC, PEER_IP, SYN, Segment, pattern};
use pagewire_hal::{
    Capabilities, ChecksumOffload, DomainId, Granule, Instant, MacAddress, PoolLayout, PostError,
    QueueError, RxChecksum, Token, TxFrame, TxPort, TxQueue,
};
use pagewire_models::host::{Host, HostConfig};
use pagewire_tcp::isn::IsnGenerator;
use pagewire_tcp::{Slice, Stack, StackConfig};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts what each thread allocates.
struct Counting;

// SAFETY: everything is passed on to the system's allocator unchanged; counting allocates
// nothing, as the thread-local cell is constant and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A queue that reads nothing and is done at once.
struct Sink {
    capabilities: Capabilities,
    domain: DomainId,
    done: Vec<Token>,
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
        frame
            .check(&self.capabilities)
            .map_err(PostError::Refused)?;
        self.done.push(token);
        Ok(())
    }

    fn doorbell(&mut self) {}

    fn reclaim(&mut self, done: &mut impl FnMut(Token)) -> Result<usize, QueueError> {
        let count = self.done.len();
        self.done.drain(..).for_each(done);
        Ok(count)
    }

    fn has_room(&self, _fragments: usize) -> bool {
        true
    }

    fn outstanding(&self) -> usize {
        self.done.len()
    }
}

/// Allocations and segments of some rounds, with segmentation or without.
fn allocations(max_fragments: u16, segmentation: bool) -> (u64, u64) {
    let host = Host::new(HostConfig::default());
    let mut capabilities = Capabilities::minimal();
    capabilities.dma_address_bits = 64;
    capabilities.max_fragments = max_fragments;
    if segmentation {
        capabilities.max_fragment_len = 16384;
        capabilities.tx_checksum = ChecksumOffload::TCP_IPV4;
        capabilities.segmentation = Some(common::segmentation(true));
    }
    let sink = Sink {
        capabilities,
        domain: host.domain(),
        done: Vec::with_capacity(4096),
    };
    let layout = PoolLayout {
        small_len: 128,
        small_count: 1024,
        large_len: 1514,
        large_count: 1024,
        page: Granule::from_bytes(4096).unwrap(),
    };
    let small = host.allocate(1024 * 128, 64).unwrap();
    let large = host.allocate(1024 * 1600, 64).unwrap();
    let port = TxPort::with_memory(sink, &layout, small, large).unwrap();
    let config = StackConfig {
        mac: MacAddress(OUR_MAC),
        address: Ipv4Addr::from(OUR_IP),
        ..StackConfig::default()
    };
    let mut stack = Stack::new(port, config).unwrap();
    let mut now = Instant::from_nanos(1);
    let remote = SocketAddrV4::new(Ipv4Addr::from(PEER_IP), 80);
    let local = SocketAddrV4::new(Ipv4Addr::from(OUR_IP), 5000);
    let id = stack.connect(now, remote, Some(5000)).unwrap();
    stack.poll(now).unwrap();
    stack.input(now, &common::arp_reply(), RxChecksum::default());
    stack.poll(now).unwrap();
    // Nothing is read, so the peer is told our number by the generator.
    let first = IsnGenerator::new([0; 16]).isn(now, local, remote).add(1).0;
    let mut answer = Segment {
        source_port: 80,
        destination_port: 5000,
        seq: 9,
        ack: first,
        flags: SYN | ACK,
        window: 60_000,
        mss: Some(1460),
        ..Segment::default()
    };
    stack.input(now, &answer.frame(), RxChecksum::default());
    answer = Segment {
        seq: 10,
        flags: ACK,
        mss: None,
        ..answer
    };
    let region = host.register(pattern(1 << 20, 1)).unwrap();
    let region = stack.register(region).unwrap();
    // Less than a window, so that nothing piles up.
    let slices: Vec<Slice> = (0..25)
        .map(|n| Slice {
            region,
            start: n * 1999,
            len: 1900,
        })
        .collect();
    let mut counted = 0;
    let mut segments = 0;
    for round in 0..200 {
        let frame = answer.frame();
        let before = (
            ALLOCATIONS.get(),
            stack.connection_stats(id).unwrap().data.segments,
        );
        stack.input(now, &frame, RxChecksum::default());
        while stack.completion(now, id).is_some() {}
        stack.send(id, &slices, round).unwrap();
        now = now + Duration::from_micros(100);
        stack.poll(now).unwrap();
        let data = stack.connection_stats(id).unwrap().data;
        if round >= 100 {
            counted += ALLOCATIONS.get() - before.0;
            segments += data.segments - before.1;
        }
        answer.ack = first.wrapping_add(data.bytes as u32);
    }
    let requests = stack.connection_stats(id).unwrap().segmented.requests;
    assert_eq!(requests > 0, segmentation && max_fragments > 2);
    (counted, segments)
}

#[test]
fn a_steady_flow_allocates_nothing() {
    for max_fragments in [1, 2, 16] {
        for segmentation in [false, true] {
            let (counted, segments) = allocations(max_fragments, segmentation);
            assert!(segments > 1000, "{segments} segments only");
            assert_eq!(
                counted, 0,
                "in {segments} segments, {max_fragments} fragments, {segmentation}"
            );
        }
    }
}
