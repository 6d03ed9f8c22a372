//! Maps against a byte array of what each address must show.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags};

use super::*;

const PAGE: u64 = 4096;

fn memfd(pages: u64, seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("pagewire-test", flags).unwrap();
    rustix::fs::ftruncate(&file, pages * PAGE).unwrap();
    let bytes: Vec<u8> = (0..pages * PAGE).map(|i| (i / 7) as u8).collect();
    rustix::io::pwrite(&file, &bytes, 0).unwrap();
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    file
}

fn map(address: u64, pages: u64, offset: u64) -> DmaMap {
    DmaMap {
        address,
        len: pages * PAGE,
        offset: offset * PAGE,
        readable: true,
        writable: true,
    }
}

fn range(address: u64, len: u64) -> DmaUnmap {
    DmaUnmap::Range { address, len }
}

fn copy(file: &OwnedFd) -> Option<OwnedFd> {
    Some(file.try_clone().unwrap())
}

#[test]
fn an_access_goes_on_from_map_to_map() {
    // Mapped and by system calls.
    for seals in [SealFlags::SHRINK, SealFlags::empty()] {
        let file = memfd(3, seals);
        let mut memory = Memory::default();
        // The pages in another order than in the file.
        for (address, offset) in [(0x1_0000, 2), (0x1_1000, 0), (0x1_2000, 1)] {
            memory.map(map(address, 1, offset), copy(&file)).unwrap();
        }
        let mut all = vec![0; 3 * PAGE as usize];
        assert_eq!(memory.read(0x1_0000, &mut all), Ok(Kind::Memory));
        let bytes: Vec<u8> = (0..3 * PAGE).map(|i| (i / 7) as u8).collect();
        let (first, last) = bytes.split_at(2 * PAGE as usize);
        assert_eq!(all, [last, first].concat());
        let wrote = vec![0xa5; 5000];
        memory.write(0x1_0ffb, &wrote).unwrap();
        let mut back = vec![0; 5000];
        memory.read(0x1_0ffb, &mut back).unwrap();
        assert_eq!(back, wrote);
        let mut in_file = [0; 5];
        File::from(file)
            .read_exact_at(&mut in_file, 3 * PAGE - 5)
            .unwrap();
        assert_eq!(in_file, [0xa5; 5]);
    }
}

#[test]
fn nothing_is_written_if_any_byte_has_no_place() {
    let file = memfd(2, SealFlags::SHRINK);
    let mut memory = Memory::default();
    memory.map(map(0x1000, 1, 0), copy(&file)).unwrap();
    let second = DmaMap {
        writable: false,
        ..map(0x2000, 1, 1)
    };
    memory.map(second, copy(&file)).unwrap();
    let before = {
        let mut bytes = [0; 16];
        memory.read(0x1ff8, &mut bytes).unwrap();
        bytes
    };
    let fault = DmaFault {
        address: 0x2000,
        write: true,
    };
    assert_eq!(memory.write(0x1ff8, &[0xff; 16]), Err(fault));
    let mut after = [0; 16];
    memory.read(0x1ff8, &mut after).unwrap();
    assert_eq!(after, before);
    assert_eq!(memory.read(0x2000, &mut [0]), Ok(Kind::Region));
    assert_eq!(
        memory.read(0x2fff, &mut [0; 2]).unwrap_err().address,
        0x3000
    );
    assert_eq!(memory.read(0xfff, &mut [0]).unwrap_err().address, 0xfff);
    assert!(memory.read(u64::MAX, &mut [0; 2]).is_err());
}

#[test]
fn maps_that_cannot_be_are_refused() {
    let file = memfd(2, SealFlags::SHRINK);
    let mut memory = Memory::default();
    memory.map(map(0x1000, 2, 0), copy(&file)).unwrap();
    for (address, pages) in [(0x1000, 1), (0x2000, 1), (0, 2), (0, 9)] {
        assert_eq!(
            memory.map(map(address, pages, 0), copy(&file)),
            Err(Errno::EXIST)
        );
    }
    assert_eq!(
        memory.map(map(0x9000, 2, 1), copy(&file)),
        Err(Errno::INVAL)
    );
    let sealed = memfd(1, SealFlags::SHRINK | SealFlags::WRITE);
    assert_eq!(
        memory.map(map(0x9000, 1, 0), copy(&sealed)),
        Err(Errno::ACCESS)
    );
    let reading = DmaMap {
        writable: false,
        ..map(0x9000, 1, 0)
    };
    memory.map(reading, copy(&sealed)).unwrap();
    assert_eq!(memory.read(0x9000, &mut [0; 8]), Ok(Kind::Region));
    // Without a file the addresses are taken, and nothing is there.
    memory.map(map(0x2_0000, 1, 0), None).unwrap();
    assert!(memory.read(0x2_0000, &mut [0]).is_err());
    let last = DmaMap {
        address: u64::MAX - 0xfff,
        ..map(0, 1, 0)
    };
    memory.map(last, copy(&file)).unwrap();
    assert_eq!(memory.read(u64::MAX, &mut [0]), Ok(Kind::Memory));
}

#[test]
fn unmapping_a_part_leaves_the_rest_where_it_was() {
    let file = memfd(8, SealFlags::SHRINK);
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..200 {
        let mut memory = Memory::default();
        memory.map(map(0x1000, 8, 0), copy(&file)).unwrap();
        let mut there = [true; 8];
        for _ in 0..4 {
            let first = random.u64(0..8);
            let count = random.u64(1..=8 - first);
            memory.unmap(range(0x1000 + first * PAGE, count * PAGE));
            there[first as usize..(first + count) as usize].fill(false);
        }
        for (page, there) in there.iter().enumerate() {
            let offset = page as u64 * PAGE + 100;
            let mut byte = [0];
            let read = memory.read(0x1000 + offset, &mut byte);
            assert_eq!(read.is_ok(), *there, "page {page}");
            if *there {
                assert_eq!(byte, [(offset / 7) as u8]);
            }
        }
        // What was never there.
        memory.unmap(range(0x100_0000, PAGE));
        memory.unmap(range(0, u64::MAX));
        assert_eq!(memory.len(), 0);
    }
}

#[test]
fn a_file_is_mapped_once_and_let_go_with_its_last_map() {
    let file = memfd(64, SealFlags::SHRINK);
    let mut memory = Memory::default();
    for page in 0..64 {
        memory
            .map(map(0x1000 + page * 2 * PAGE, 1, page), copy(&file))
            .unwrap();
    }
    assert_eq!(memory.len(), 64);
    let mut maps = memory.maps.values();
    let first = maps.next().unwrap().file.clone().unwrap();
    assert!(maps.all(|map| Arc::ptr_eq(map.file.as_ref().unwrap(), &first)));
    drop(first);
    memory.unmap(DmaUnmap::All);
    assert!(memory.files.values().all(|file| file.strong_count() == 0));
}

#[test]
fn a_file_that_gets_shorter_is_a_fault_and_no_signal() {
    let file = memfd(2, SealFlags::empty());
    let mut memory = Memory::default();
    memory.map(map(0x1000, 2, 0), copy(&file)).unwrap();
    assert!(memory.read(0x2000, &mut [0; 8]).is_ok());
    rustix::fs::ftruncate(&file, PAGE).unwrap();
    assert!(memory.read(0x2000, &mut [0; 8]).is_err());
    assert!(memory.write(0x2000, &[0; 8]).is_err());
    assert!(memory.read(0x1000, &mut [0; 8]).is_ok());
    // And it does not get longer by a write.
    assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, PAGE as i64);
}
