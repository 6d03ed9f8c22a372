//! What the systems named in the discussion of 1997 could do, and what they could not.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use pagewire::hal::RegionId;
use pagewire::tcp::{Explanation, SendOptions, Slice};
use pagewire_vfio::LiveFile;

use super::machine::{Kind, Machine, PAGE, Setup};

/// A file, mapped and registered, and a piece of memory with a header.
struct Case {
    machine: Machine,
    file: File,
    content: Vec<u8>,
    mapped: RegionId,
    header: RegionId,
}

const HEADER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n";

impl Case {
    fn new(kind: Kind, len: usize) -> Self {
        let mut setup = Setup::new(kind, 1);
        // What is short is copied: the header, but no part of a file.
        setup.thresholds.owned = 256;
        let mut machine = Machine::new(&setup);
        let mut random = fastrand::Rng::with_seed(len as u64);
        let content: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let live = LiveFile::map(file.try_clone().unwrap(), 0, len).unwrap();
        let mapped = machine.host.register(live).unwrap();
        let mapped = machine.stack.register(mapped).unwrap();
        let header = machine.host.register(HEADER.to_vec()).unwrap();
        let header = machine.stack.register(header).unwrap();
        Self {
            machine,
            file,
            content,
            mapped,
            header,
        }
    }

    fn of_file(&self, start: usize, len: usize) -> Slice {
        Slice {
            region: self.mapped,
            start,
            len,
        }
    }

    fn of_header(&self, len: usize) -> Slice {
        Slice {
            region: self.header,
            start: 0,
            len,
        }
    }

    /// One call; returns its account, what has arrived, and the frames with payload.
    fn send(&mut self, slices: &[Slice]) -> (Explanation, Vec<u8>, Vec<Vec<u8>>) {
        let mut options = SendOptions::default();
        options.explain = true;
        let id = self.machine.connections[0];
        let before = self.machine.arrived(0).len();
        let now = self.machine.host.now();
        let len: usize = slices.iter().map(|slice| slice.len).sum();
        let sent = self.machine.stack.send_with(now, id, slices, 1, &options);
        assert_eq!(sent, Ok(len));
        let mut frames = Vec::new();
        let mut account = None;
        self.machine.run_until("over", |machine| {
            let payload = machine
                .receiver
                .frames()
                .iter()
                .filter(|frame| frame.len() > 66);
            frames.extend(payload.cloned());
            let now = machine.host.now();
            account = account.or_else(|| machine.stack.explained(now, id)?.1);
            account.is_some()
        });
        (
            account.unwrap(),
            self.machine.arrived(0)[before..].to_vec(),
            frames,
        )
    }
}

/// Solaris 2.6 shared what was written from a mapped file, in multiples of 16 KiB. "It unfortunately
/// won't do it if you use writev()." Here any length goes from any place, and so does writev.
#[test]
fn solaris_writes_of_16_kib_from_a_mapped_file_and_all_others() {
    for kind in Kind::ALL {
        let mut case = Case::new(kind, 20 * PAGE);
        for (start, len) in [
            (0, 16 << 10),
            (0, 32 << 10),
            // What it would have copied.
            (0, (16 << 10) - 1),
            (0, (16 << 10) + 1),
            (1, 16 << 10),
            (PAGE - 1, 3),
            (12_345, 54_321),
            (7, 1),
        ] {
            let (account, arrived, _) = case.send(&[case.of_file(start, len)]);
            assert_eq!(arrived, case.content[start..start + len], "{kind:?}");
            let shared = account.lent == len as u64 && account.copied_early.total() == 0;
            assert!(shared, "{kind:?}, {len} from {start}: {account:?}");
            // A frame that is too short for the device is padded, and so copied.
            assert_eq!(
                account.shared + account.too_short,
                len as u64,
                "{kind:?} {account:?}"
            );
        }
        let pieces = [(100, 5000), (9000, 1), (20_000, 16 << 10), (3, 777)];
        let slices = pieces.map(|(start, len)| case.of_file(start, len));
        let (account, arrived, _) = case.send(&slices);
        let expected = pieces.map(|(start, len)| case.content[start..start + len].to_vec());
        assert_eq!(arrived, expected.concat());
        assert_eq!(
            account.shared,
            arrived.len() as u64,
            "{kind:?}: writev is shared too"
        );
    }
}

/// Apache 1.3: the HTTP header and the first chunk of the file in one call, and in one frame.
#[test]
fn apache_header_and_first_chunk_are_one_frame() {
    for kind in Kind::ALL {
        let mut case = Case::new(kind, 20 * PAGE);
        let chunk = 1000;
        let (account, arrived, frames) =
            case.send(&[case.of_header(HEADER.len()), case.of_file(0, chunk)]);
        let expected = [HEADER, &case.content[..chunk]].concat();
        assert_eq!(arrived, expected);
        assert_eq!(frames.len(), 1, "{kind:?}");
        assert!(frames[0].ends_with(&expected), "{kind:?}");
        assert_eq!(account.frames, 1);
        // The chunk from the pages of the file, the header from where it was put.
        assert_eq!(account.shared, chunk as u64, "{kind:?}");
        assert_eq!(account.from_pool, HEADER.len() as u64);
        assert!(account.fragments >= 3, "{kind:?}: {account:?}");
        // And a whole file behind its header: only the header is copied.
        let len = 70_000;
        let (account, arrived, _) =
            case.send(&[case.of_header(HEADER.len()), case.of_file(5, len)]);
        assert_eq!(arrived, [HEADER, &case.content[5..5 + len]].concat());
        assert_eq!(
            (account.shared, account.copied_early.total()),
            (70_000, HEADER.len() as u64)
        );
    }
}

/// NT had one special call for files: a head, the file, a tail. Here it is a call like any other.
#[test]
fn nt_a_file_between_a_head_and_a_tail_in_one_call() {
    for kind in Kind::ALL {
        let mut case = Case::new(kind, 9 * PAGE + 123);
        let len = case.content.len();
        let slices = [
            case.of_header(HEADER.len()),
            case.of_file(0, len),
            case.of_header(17),
        ];
        let (account, arrived, _) = case.send(&slices);
        assert_eq!(
            arrived,
            [HEADER, &case.content, &HEADER[..17]].concat(),
            "{kind:?}"
        );
        assert_eq!(account.shared, len as u64, "{kind:?}");
        assert_eq!(
            account.copied_early.below_threshold,
            HEADER.len() as u64 + 17
        );
        case.machine.assert_all_back();
    }
}

/// "Or will a more traditional mmap() approach do the job as well?" It will: the file is mapped, the
/// mapping is sent, and what somebody writes to the file meanwhile is what a live file promises, no
/// more and no less.
#[test]
fn the_plain_mmap_way_and_what_it_does_not_promise() {
    for kind in Kind::ALL {
        let mut case = Case::new(kind, 4 * PAGE);
        let (account, arrived, _) = case.send(&[case.of_file(0, 4 * PAGE)]);
        assert_eq!(arrived, case.content);
        assert_eq!(account.shared, 4 * PAGE as u64);
        // Written between two calls: the second has the new bytes, without being told.
        case.file.write_all_at(b"written", 10).unwrap();
        let (_, arrived, _) = case.send(&[case.of_file(0, 20)]);
        assert_eq!(&arrived[10..17], b"written");
        // Shortened while it is mapped and sent: zeros, a good checksum, and no signal.
        case.file.set_len(PAGE as u64).unwrap();
        let (_, arrived, _) = case.send(&[case.of_file(0, 4 * PAGE)]);
        assert_eq!(arrived[20..PAGE], case.content[20..PAGE], "{kind:?}");
        assert!(arrived[PAGE..].iter().all(|byte| *byte == 0), "{kind:?}");
        // Grown again.
        case.file
            .write_all_at(&[b'g'; 100], 3 * PAGE as u64)
            .unwrap();
        let (_, arrived, _) = case.send(&[case.of_file(3 * PAGE, 100)]);
        assert_eq!(arrived, [b'g'; 100], "{kind:?}");
        case.machine.assert_all_back();
    }
}

/// Without checksums by the device a live file is copied and summed in one pass; memory that is
/// owned or watched is not.
#[test]
fn without_checksum_offload_only_what_is_live_is_copied() {
    for kind in Kind::ALL {
        let mut setup = Setup::new(kind, 3);
        setup.checksum = false;
        let mut machine = Machine::new(&setup);
        let bytes: Vec<u8> = (0..3 * PAGE).map(|i| (i * 7) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let live = LiveFile::map(file, 0, 3 * PAGE).unwrap();
        let live = machine.host.register(live).unwrap();
        let owned = machine.host.register(bytes.clone()).unwrap();
        let id = machine.connections[0];
        for (region, shares) in [
            (machine.stack.register(owned).unwrap(), true),
            (machine.stack.register(live).unwrap(), false),
        ] {
            let before = machine.stack.stats().connections;
            let slice = Slice {
                region,
                start: 0,
                len: 3 * PAGE,
            };
            assert_eq!(machine.stack.send(id, &[slice], 1), Ok(3 * PAGE));
            let len = machine.arrived(0).len() + 3 * PAGE;
            machine.run_until("arrived", |m| m.arrived(0).len() >= len);
            assert_eq!(machine.arrived(0)[len - 3 * PAGE..], bytes);
            let stats = machine.stack.stats().connections;
            let shared = stats.shared_bytes - before.shared_bytes;
            let copied = stats.copied.live.bytes - before.copied.live.bytes;
            let all = 3 * PAGE as u64;
            let expected = if shares { (all, 0) } else { (0, all) };
            assert_eq!((shared, copied), expected, "{kind:?}");
        }
        machine.assert_all_back();
    }
}
