//! The rules of the house that TCP has a part in, each by its number.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{ACK, FIN, PeerOptions, RST, Setup, World, pattern};
use pagewire_hal::{ChecksumOffload, Granule};
use pagewire_models::host::HostRegion;
use pagewire_tcp::{Completion, Outcome, Slice};

/// A setup in which two pages are never neighbours for the device, or always.
fn setup(max_fragments: u16, scattered: bool) -> Setup {
    let mut setup = Setup {
        max_fragments,
        ..Setup::default()
    };
    if !scattered {
        setup.granule = Granule::CONTIGUOUS;
    }
    setup
}

/// A buffer that begins on a page.
#[repr(align(4096))]
struct Page([u8; 8192]);

static PAGES: Page = Page([0x5a; 8192]);

#[test]
fn rule_1_pieces_are_counted_after_translation() {
    for (max_fragments, scattered, shared) in
        [(2, true, 0), (2, false, 2), (3, true, 2), (1, false, 0)]
    {
        let mut w = World::new(&setup(max_fragments, scattered));
        let (id, mut peer) = w.established(PeerOptions::default());
        let bytes: &'static [u8] = &PAGES.0;
        let region = w.host.register(bytes).unwrap();
        let region = w.stack.register(region).unwrap();
        let slice = Slice {
            region,
            start: 4095,
            len: 2,
        };
        assert_eq!(w.stack.send(id, &[slice], 1), Ok(2));
        let sent = w.pump();
        assert_eq!(peer.take(&sent), [0x5a; 2]);
        let case = format!("{max_fragments} fragments, scattered: {scattered}");
        let stats = w.stack.connection_stats(id).unwrap();
        assert_eq!(stats.shared_bytes, shared, "{case}");
        assert_eq!(w.handle.counters().region_bytes, shared, "{case}");
        let copied = &stats.copied;
        assert_eq!(copied.total().bytes, 2 - shared, "{case}");
        let no_gather = u64::from(max_fragments == 1);
        assert_eq!(copied.no_gather.segments, no_gather, "{case}");
    }
}

#[test]
fn rule_1_slices_that_are_neighbours_are_one_piece() {
    let mut w = World::new(&setup(2, false));
    let (id, _) = w.established(PeerOptions::default());
    let region = w.region(pattern(1000, 1));
    let slices: Vec<_> = (0..10)
        .map(|n| Slice {
            region,
            start: n * 100,
            len: 100,
        })
        .collect();
    assert_eq!(w.stack.send(id, &slices, 1), Ok(1000));
    w.pump();
    assert_eq!(w.stack.connection_stats(id).unwrap().shared_bytes, 1000);
    assert_eq!(w.max_fragments_seen, 2);
}

#[test]
fn rule_1_a_rescue_copies_the_shortest_prefix() {
    let mut w = World::new(&setup(3, true));
    let (id, mut peer) = w.established(PeerOptions::default());
    // From the start of a page: no slice crosses one.
    let mut page = Page([0; 8192]);
    page.0[..4000].copy_from_slice(&pattern(4000, 1));
    let page: &'static Page = Box::leak(Box::new(page));
    let region = w.host.register(&page.0[..4000]).unwrap();
    let region = w.stack.register(region).unwrap();
    // Four pieces, and room for two beside the header.
    let slices = [(0, 10), (100, 20), (200, 500), (1000, 400)].map(|(start, len)| Slice {
        region,
        start,
        len,
    });
    assert_eq!(w.stack.send(id, &slices, 1), Ok(930));
    let sent = w.pump();
    let bytes = pattern(4000, 1);
    let wanted = [
        &bytes[..10],
        &bytes[100..120],
        &bytes[200..700],
        &bytes[1000..1400],
    ]
    .concat();
    assert!(peer.take(&sent) == wanted);
    let stats = w.stack.connection_stats(id).unwrap();
    assert_eq!((stats.rescued.segments, stats.rescued.bytes), (1, 30));
    assert_eq!((stats.rescued_shared_bytes, stats.shared_bytes), (900, 900));
    assert_eq!(w.handle.counters().region_bytes, 900);
}

#[test]
fn rule_2_acknowledged_is_not_done() {
    let mut w = World::new(&Setup::default());
    let (id, mut peer) = w.established(PeerOptions::default());
    w.completes = false;
    let region = w.region(pattern(3000, 1));
    w.send_all(id, region, 3000, 5);
    let sent = w.pump();
    peer.take(&sent);
    let ack = peer.ack();
    w.give(&ack);
    assert!(w.pinned() > 0, "the device still reads");
    assert_eq!(
        w.stack.completion(w.now, id),
        None,
        "the device still reads"
    );
    w.advance(Duration::from_millis(3));
    w.handle.complete_all();
    w.pump();
    assert_eq!(w.pinned(), 0);
    assert!(w.stack.completion(w.now, id).is_some());
    let lent = &w.stack.connection_stats(id).unwrap().lent;
    assert_eq!(lent.count(), 3);
    assert!(lent.p50().unwrap() >= Duration::from_millis(3));
}

#[test]
fn rule_2_done_is_not_acknowledged() {
    let mut w = World::new(&Setup::default());
    let (id, mut peer) = w.established(PeerOptions::default());
    let region = w.region(pattern(3000, 1));
    w.send_all(id, region, 3000, 5);
    let sent = w.pump();
    w.pump();
    assert_eq!(w.stack.port().outstanding(), 0, "the device is done");
    assert!(w.pinned() > 0, "nothing is acknowledged");
    assert_eq!(w.stack.completion(w.now, id), None);
    peer.take(&sent);
    let ack = peer.ack();
    w.give(&ack);
    assert_eq!(w.pinned(), 0);
    assert!(w.stack.completion(w.now, id).is_some());
}

#[test]
fn rule_2_sack_releases_nothing() {
    let mut w = World::new(&Setup::default());
    let (id, peer) = w.established(PeerOptions {
        sack: true,
        ..PeerOptions::default()
    });
    let region = w.region(pattern(40_960, 1));
    let slice = Slice {
        region,
        start: 0,
        len: 8000,
    };
    w.stack.send(id, &[slice], 5).unwrap();
    let sent = w.pump();
    w.pump();
    let before = (w.pinned(), w.loans());
    let sack = peer.sack(peer.ack, &[(sent[1].seq, sent.last().unwrap().end())]);
    w.give(&sack);
    assert_eq!((w.pinned(), w.loans()), before);
    assert_eq!(w.stack.completion(w.now, id), None);
}

#[test]
fn rule_2_a_retransmission_waits_for_the_original() {
    let mut w = World::new(&Setup::default());
    let (id, _) = w.established(PeerOptions::default());
    w.completes = false;
    let bytes = pattern(1000, 1);
    let region = w.region(bytes.clone());
    w.send_all(id, region, 1000, 5);
    assert_eq!(w.pump().len(), 1);
    for _ in 0..5 {
        w.advance(Duration::from_millis(1500));
        assert!(w.pump().is_empty(), "the original is still in the ring");
        let loans = w.loans();
        assert!(
            loans <= 2,
            "{loans} loans: the connection's and the device's"
        );
    }
    let stats = w.stack.connection_stats(id).unwrap();
    assert!(stats.put_off > 0 && stats.timeouts > 0);
    w.handle.complete_all();
    let sent = w.pump();
    assert_eq!(sent.len(), 1, "now it goes");
    assert!(sent[0].payload == bytes);
}

/// A loan of a part of a segment keeps its call from completing while the device reads it.
#[test]
fn rule_2_a_call_acknowledged_in_mid_segment_waits_for_the_device() {
    let mut setup = Setup::default();
    setup.config.nagle = true;
    let mut w = World::new(&setup);
    let (id, mut peer) = w.established(PeerOptions::default());
    let region = w.region(pattern(3000, 1));
    // The second and third call travel in one segment.
    for (tag, start) in [(1, 0), (2, 100), (3, 200)] {
        let slice = Slice {
            region,
            start,
            len: 100,
        };
        assert_eq!(w.stack.send(id, &[slice], tag), Ok(100));
        if tag == 1 {
            let sent = w.pump();
            peer.take(&sent);
        }
    }
    w.completes = false;
    let ack = peer.ack();
    w.give(&ack);
    let sent = w.pump();
    assert_eq!(
        sent[0].payload.len(),
        200,
        "Nagle has put two calls together"
    );
    assert!(w.stack.completion(w.now, id).is_some_and(|c| c.tag == 1));
    let half = peer.ack_at(sent[0].seq.wrapping_add(100));
    w.give(&half);
    assert_eq!(
        w.stack.completion(w.now, id),
        None,
        "the device still reads"
    );
    w.handle.complete_all();
    w.pump();
    let done = Completion {
        tag: 2,
        bytes: 100,
        outcome: Outcome::Delivered,
    };
    assert_eq!(w.stack.completion(w.now, id), Some(done));
    assert_eq!(w.stack.completion(w.now, id), None, "not acknowledged");
}

#[test]
fn rule_3_a_retransmission_carries_the_bytes_as_they_were_sent() {
    for segmentation in [None, Some(common::segmentation(false))] {
        sent_again_unchanged(&Setup {
            segmentation,
            ..Setup::default()
        });
    }
}

fn sent_again_unchanged(setup: &Setup) {
    let mut w = World::new(setup);
    let (id, mut peer) = w.established(PeerOptions::default());
    let bytes: Arc<[u8]> = pattern(5000, 9).into();
    let region = w.shared_region(&bytes);
    w.send_all(id, region, 5000, 5);
    let mut bytes = bytes;
    assert!(Arc::get_mut(&mut bytes).is_none(), "nobody can write");
    // The program lets go of the region and of the bytes; both live on.
    let wanted = bytes.to_vec();
    w.stack.release_region(region).unwrap();
    drop(bytes);
    let first = w.pump();
    assert!(w.stack.take_released().is_none());
    w.skip_to_next_call();
    let again = w.pump();
    assert_eq!(again[0].payload, first[0].payload);
    let mut got = peer.take(&first[..1]);
    while got.len() < wanted.len() {
        let ack = peer.ack();
        w.give(&ack);
        got.extend(peer.take(&w.pump()));
    }
    assert!(got == wanted);
    let ack = peer.ack();
    w.give(&ack);
    let (released, owner) = w.stack.take_released().unwrap();
    assert_eq!(released, region);
    assert!(w.stack.take_released().is_none(), "once");
    let owner: Arc<dyn std::any::Any + Send + Sync> = owner;
    let owner = owner.downcast::<HostRegion<Arc<[u8]>>>().unwrap();
    let back = Arc::into_inner(owner).unwrap().into_inner().unwrap();
    assert!(back.to_vec() == wanted, "the buffer itself comes back");
}

#[test]
fn rule_5_sharing_does_not_need_checksum_offload() {
    for checksum in [
        ChecksumOffload::empty(),
        ChecksumOffload::IPV4_HEADER,
        ChecksumOffload::TCP_IPV4,
        ChecksumOffload::GENERIC,
        ChecksumOffload::GENERIC | ChecksumOffload::IPV4_HEADER,
    ] {
        let mut w = World::new(&Setup {
            checksum,
            ..Setup::default()
        });
        let (id, mut peer) = w.established(PeerOptions::default());
        let bytes = pattern(14_001, 1);
        let region = w.region(bytes.clone());
        w.send_all(id, region, 14_001, 5);
        // Segments are checked for their sums as they are parsed.
        assert!(peer.take(&w.pump()) == bytes);
        let stats = w.stack.connection_stats(id).unwrap();
        assert_eq!(stats.shared_bytes, 14_001, "{checksum:?}");
        let sums = stats.checksums;
        let by_device = checksum.intersects(ChecksumOffload::TRANSPORT);
        assert_eq!(sums.tcp_device > 0, by_device, "{checksum:?}");
        assert_eq!(sums.tcp_cpu > 0, !by_device, "{checksum:?}");
        let by_device = checksum.contains(ChecksumOffload::IPV4_HEADER);
        assert_eq!(sums.ipv4_device > 0, by_device, "{checksum:?}");
        assert_eq!(sums.ipv4_cpu > 0, !by_device, "{checksum:?}");
    }
}

/// Ways in which a connection with pages in the ring ends.
#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Ack,
    Reset,
    Abort,
    Remove,
    Timeout,
    DeviceReset,
    Drop,
}

#[test]
fn rule_6_a_buffer_is_released_exactly_once_on_every_way_out() {
    use End::{Abort, Ack, DeviceReset, Drop, Remove, Reset, Timeout};
    for end in [Ack, Reset, Abort, Remove, Timeout, DeviceReset, Drop] {
        for completes in [true, false] {
            for segmentation in [None, Some(common::segmentation(true))] {
                let setup = Setup {
                    segmentation,
                    ..Setup::default()
                };
                released_once(end, completes, &setup);
            }
        }
    }
}

fn released_once(end: End, completes: bool, setup: &Setup) {
    let segmentation = setup.segmentation.is_some();
    let case = format!("{end:?}, completes: {completes}, segmentation: {segmentation}");
    let mut w = World::new(setup);
    let (id, mut peer) = w.established(PeerOptions::default());
    w.completes = completes;
    let bytes: Arc<[u8]> = pattern(10_000, 9).into();
    let region = w.shared_region(&bytes);
    w.send_all(id, region, 10_000, 5);
    w.stack.release_region(region).unwrap();
    let sent = w.pump();
    assert!(w.stack.take_released().is_none(), "{case}");
    let sent_again = match end {
        End::Ack => {
            peer.take(&sent);
            let ack = peer.ack();
            w.give(&ack);
            Vec::new()
        }
        End::Reset => {
            let rst = peer.bare(RST | ACK, peer.seq);
            w.give(&rst);
            Vec::new()
        }
        End::Abort => {
            w.stack.abort(w.now, id);
            Vec::new()
        }
        End::Remove => {
            w.stack.remove(w.now, id);
            Vec::new()
        }
        End::Timeout => {
            for _ in 0..100 {
                w.advance(Duration::from_secs(60));
                w.pump();
            }
            assert!(w.stack.error(id).is_some(), "{case}");
            Vec::new()
        }
        End::DeviceReset => {
            w.handle.reset_all();
            w.pump();
            assert_eq!(w.stack.port().outstanding(), 0, "{case}");
            assert!(w.pinned() > 0, "not acknowledged: {case}");
            w.completes = true;
            w.skip_to_next_call();
            let mut again = w.pump();
            while peer.ack != sent.last().unwrap().end() {
                peer.take(&again);
                let ack = peer.ack();
                w.give(&ack);
                again = w.pump();
            }
            again
        }
        End::Drop => {
            let World { stack, handle, .. } = w;
            drop(stack);
            // What the device reads is leaked, never freed under it.
            assert_eq!(
                Arc::strong_count(&bytes),
                1 + usize::from(!completes),
                "{case}"
            );
            handle.complete_all();
            let violations = handle.violations();
            assert!(violations.is_empty(), "{case}: {violations:?}");
            return;
        }
    };
    assert!(sent_again.len() <= sent.len(), "{case}");
    if !completes && end != End::DeviceReset {
        assert!(w.pinned() > 0, "the device reads: {case}");
        assert!(w.stack.take_released().is_none(), "{case}");
        if end != End::Remove {
            assert_eq!(w.stack.completion(w.now, id), None, "{case}");
        }
    }
    w.completes = true;
    w.handle.complete_all();
    w.pump();
    assert_eq!((w.pinned(), w.loans()), (0, 0), "{case}");
    assert!(w.stack.take_released().is_some(), "{case}");
    assert!(w.stack.take_released().is_none(), "{case}");
    assert_eq!(Arc::strong_count(&bytes), 1, "{case}");
    if end != End::Remove {
        let delivered = matches!(end, End::Ack | End::DeviceReset);
        let outcome = w.stack.completion(w.now, id).unwrap().outcome;
        assert_eq!(outcome == Outcome::Delivered, delivered, "{case}");
        assert_eq!(w.stack.completion(w.now, id), None, "{case}");
    }
}

#[test]
fn a_slice_that_does_not_exist_undoes_the_whole_call() {
    let mut w = World::new(&Setup::default());
    let (id, mut peer) = w.established(PeerOptions::default());
    let region = w.region(pattern(3000, 1));
    let slice = |start, len| Slice { region, start, len };
    assert!(
        w.stack
            .send(id, &[slice(0, 100), slice(2999, 2)], 1)
            .is_err()
    );
    assert_eq!(w.loans(), 0);
    assert_eq!(w.stack.send(id, &[slice(0, 0)], 1), Ok(0));
    assert!(w.pump().is_empty());
    assert_eq!(w.stack.completion(w.now, id), None);
    assert_eq!(w.stack.send(id, &[slice(5, 0), slice(2999, 1)], 1), Ok(1));
    assert_eq!(peer.take(&w.pump()), pattern(3000, 1)[2999..]);
}

#[test]
fn a_partial_write_keeps_its_place() {
    let mut setup = Setup::default();
    setup.config.send_limit = 2500;
    let mut w = World::new(&setup);
    let (id, mut peer) = w.established(PeerOptions::default());
    let bytes = pattern(10_000, 1);
    let region = w.region(bytes.clone());
    let (mut accepted, mut got, mut tag) = (0, Vec::new(), 0);
    while got.len() < bytes.len() {
        let rest: Vec<_> = (accepted..bytes.len())
            .step_by(700)
            .map(|start| Slice {
                region,
                start,
                len: 700.min(bytes.len() - start),
            })
            .collect();
        tag += 1;
        let room = w.stack.send_room(id);
        let taken = w.stack.send(id, &rest, tag).unwrap();
        assert_eq!(taken, room.min(bytes.len() - accepted));
        accepted += taken;
        let sent = w.pump();
        got.extend(peer.take(&sent));
        let ack = peer.ack();
        w.give(&ack);
        assert_eq!(w.stack.completion(w.now, id).map(|c| c.bytes), Some(taken));
    }
    assert!(got == bytes);
    w.stack.close(w.now, id);
    assert_eq!(w.pump().last().unwrap().flags & FIN, FIN);
}

#[test]
fn short_frames_are_padded_for_devices_that_want_it() {
    let mut w = World::new(&Setup {
        min_frame_len: 60,
        ..Setup::default()
    });
    let (id, mut peer) = w.established(PeerOptions::default());
    let region = w.region(pattern(3000, 1));
    w.send_all(id, region, 3, 1);
    let sent = w.pump();
    assert_eq!(peer.take(&sent), pattern(3000, 1)[..3]);
    let stats = w.stack.connection_stats(id).unwrap();
    assert_eq!(stats.copied.too_short.bytes, 3);
}
