//! The recorder: what it writes, read back by hand as the pcapng draft describes it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are test code")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use pagewire_hal::Instant;
use pagewire_models::Wire;
use pagewire_models::wire::{Recorder, pair};

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Type and content of the blocks of a section in native byte order.
fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
    let mut blocks = Vec::new();
    while !file.is_empty() {
        let len = word(file, 4) as usize;
        assert_eq!(len % 4, 0);
        assert_eq!(word(file, len - 4) as usize, len, "the two lengths differ");
        blocks.push((word(file, 0), &file[8..len - 4]));
        file = &file[len..];
    }
    blocks
}

/// Code and value of the options in `bytes`.
fn options(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut options = Vec::new();
    while bytes.len() >= 4 {
        let code = u16::from_ne_bytes(bytes[..2].try_into().unwrap());
        let len = usize::from(u16::from_ne_bytes(bytes[2..4].try_into().unwrap()));
        options.push((code, &bytes[4..4 + len]));
        bytes = &bytes[4 + len.next_multiple_of(4)..];
    }
    assert!(bytes.is_empty());
    options
}

#[test]
fn both_directions_are_recorded_with_time_and_direction() {
    let (near, mut far) = pair();
    let mut wire = Recorder::new(near, Vec::new()).unwrap();
    let recording = wire.recording();
    let late = Instant::from_nanos(0x1_2345_6789);
    wire.transmit(&mut vec![1; 61], Instant::from_nanos(17));
    far.transmit(&mut vec![2; 64], Instant::ZERO);
    let mut frame = Vec::new();
    assert!(wire.receive(&mut frame, late));
    assert_eq!(frame, [2; 64]);
    assert!(!wire.receive(&mut frame, late));
    assert!(far.receive(&mut frame, Instant::ZERO));
    assert_eq!(frame, [1; 61]);
    assert_eq!(recording.frames(), 2);
    let file = recording.finish().unwrap().unwrap();
    wire.transmit(&mut vec![3; 60], late);
    assert!(
        far.receive(&mut frame, Instant::ZERO),
        "the traffic stopped"
    );
    assert!(recording.finish().unwrap().is_none());

    let blocks = blocks(&file);
    let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [0x0a0d_0d0a, 1, 6, 6]);
    assert_eq!(word(blocks[0].1, 0), 0x1a2b_3c4d);
    assert_eq!(blocks[1].1[..2], 1u16.to_ne_bytes(), "Ethernet");
    assert!(
        options(&blocks[1].1[8..]).contains(&(9, &[9])),
        "nanoseconds"
    );
    let expected = [
        (17u64, vec![1; 61], 2u32),
        (late.as_nanos(), vec![2; 64], 1),
    ];
    for ((_, block), (time, bytes, direction)) in blocks[2..].iter().zip(expected) {
        assert_eq!(word(block, 0), 0, "interface");
        let recorded = u64::from(word(block, 4)) << 32 | u64::from(word(block, 8));
        assert_eq!(recorded, time);
        assert_eq!(word(block, 12) as usize, bytes.len());
        assert_eq!(word(block, 16) as usize, bytes.len());
        assert_eq!(block[20..20 + bytes.len()], bytes);
        let rest = &block[20 + bytes.len().next_multiple_of(4)..];
        assert!(options(rest).contains(&(2, &direction.to_ne_bytes()[..])));
    }
}

/// Takes so many bytes, then no more; remembers whether it was flushed.
struct Disk {
    left: usize,
    flushed: Arc<Mutex<bool>>,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self
            .left
            .checked_sub(bytes.len())
            .ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        *self.flushed.lock().unwrap() = true;
        Ok(())
    }
}

#[test]
fn an_error_is_kept_and_the_traffic_goes_on() {
    let (near, mut far) = pair();
    let flushed = Arc::default();
    let disk = Disk { left: 500, flushed };
    let mut wire = Recorder::new(near, disk).unwrap();
    let recording = wire.recording();
    let mut frame = Vec::new();
    for n in 0..20 {
        wire.transmit(&mut vec![n; 60], Instant::ZERO);
        assert!(far.receive(&mut frame, Instant::ZERO));
        assert_eq!(frame, [n; 60]);
    }
    assert!((1..8).contains(&recording.frames()), "{recording:?}");
    let error = recording.finish().err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(recording.finish().unwrap().is_none(), "reported twice");
}

#[test]
fn finishing_flushes() {
    let (near, _far) = pair();
    let flushed = Arc::new(Mutex::new(false));
    let disk = Disk {
        left: 500,
        flushed: Arc::clone(&flushed),
    };
    let wire = Recorder::new(near, disk).unwrap();
    assert!(wire.recording().finish().unwrap().is_some());
    assert!(*flushed.lock().unwrap());
}

#[test]
fn an_output_that_takes_nothing_is_refused() {
    let (near, _far) = pair();
    let disk = Disk {
        left: 3,
        flushed: Arc::default(),
    };
    assert!(Recorder::new(near, disk).is_err());
}
