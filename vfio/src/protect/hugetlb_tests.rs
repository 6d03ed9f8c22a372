//! Huge pages that were set aside (hugetlb): where there are none, root sets some aside for as long as
//! the tests last.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::ptr::NonNull;

use super::brought_tests::{Mapping, lend};
use super::test_support::{Device, Place, Writer, protectors, waits};
use super::tests::read_into;
use super::*;
use crate::pages::HUGE;

const DIRECTORY: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

fn number(name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("{DIRECTORY}/{name}")).ok()?;
    text.trim().parse().ok()
}

/// Huge pages, more than all tests of this program use at a time.
struct SetAside {
    /// Puts the number back when its input ends, so also if this process is killed. None if there
    /// were enough already.
    guard: Option<Child>,
}

impl SetAside {
    const PAGES: u64 = 64;

    /// None, and a line that says why, if there are none to be had.
    fn new() -> Option<Self> {
        let skipped = |why: &str| println!("skipped, no huge pages of 2 MiB: {why}");
        let (Some(free), Some(all)) = (number("free_hugepages"), number("nr_hugepages")) else {
            skipped("this kernel has no hugetlb");
            return None;
        };
        if free >= Self::PAGES {
            return Some(Self { guard: None });
        }
        if !rustix::process::geteuid().is_root() {
            skipped("none are set aside (vm.nr_hugepages), and only root can do that");
            return None;
        }
        let file = format!("{DIRECTORY}/nr_hugepages");
        // Others may set some aside meanwhile, and the kernel may give fewer than were asked for: then
        // there are no more of others than there were.
        let restore = "trap '' INT HUP TERM; cat > /dev/null; now=$(cat \"$2\"); left=$((now - $1)); \
            [ $left -ge $3 ] || left=$((now < $3 ? now : $3)); echo $left > \"$2\"";
        let guard = Command::new("sh")
            .args(["-c", restore, "sh", &Self::PAGES.to_string(), &file])
            .arg(all.to_string())
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let this = Self { guard: Some(guard) };
        let set = fs::write(&file, (all + Self::PAGES).to_string());
        let free = number("free_hugepages").unwrap_or(0);
        if set.is_err() || free < Self::PAGES {
            skipped(&format!("{set:?}, {free} are free of {}", Self::PAGES));
            return None;
        }
        Some(this)
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        if let Some(guard) = &mut self.guard {
            drop(guard.stdin.take());
            let ended = guard.wait();
            println!("put back: {ended:?}, {:?}", number("nr_hugepages"));
        }
    }
}

/// One test, as there is one number of huge pages for all.
#[test]
fn huge_pages_that_were_set_aside() {
    let Some(pages) = SetAside::new() else {
        return;
    };
    for protector in protectors() {
        println!("{}", protector.mode());
        an_arena_is_lent_page_by_page(&protector);
        the_kernel_writes(&protector);
        the_thread_that_polls_is_kept_away(&protector);
        a_device_reads_what_was_lent(&protector);
        a_limit_counts_whole_pages(&protector);
        what_is_forgotten_stays(&protector);
        let brought = Mapping::huge(2 * HUGE);
        assert_eq!(brought.len(), 2, "private and shared ones");
        for memory in brought {
            lend(&protector, memory);
        }
        memory_that_nobody_has_touched(&protector);
        a_part_of_a_page_is_refused(&protector);
        with_too_few_there_are_others(&protector);
        let counters = protector.counters();
        // But for what was forgotten.
        assert_eq!(
            (counters.registered_bytes, counters.protected_bytes),
            (HUGE as u64, HUGE as u64)
        );
    }
    drop(pages);
}

/// In pages that were set aside, as the kernel says.
fn arena(protector: &Protector, len: usize) -> Arena {
    let arena = protector.huge_arena(len).unwrap();
    for base in [arena.base(), arena.program()] {
        assert!(has_flag(base, "ht") && has_flag(base, "dc"));
    }
    arena
}

/// Whether the mapping that has an address has a flag, as proc(5) lists them.
fn has_flag(place: NonNull<u8>, flag: &str) -> bool {
    let place = place.addr().get();
    let has_place = |line: &&str| {
        let range = line
            .split_once(' ')
            .and_then(|(range, _)| range.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).ok();
        let range = range.and_then(|(start, end)| Some(number(start)?..number(end)?));
        range.is_some_and(|range| range.contains(&place))
    };
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let ours = smaps.lines().skip_while(|line| !has_place(line));
    let flags = ours.skip(1).find(|line| line.starts_with("VmFlags:"));
    let flags = flags.expect("the mapping has flags");
    flags.split_whitespace().any(|other| other == flag)
}

fn an_arena_is_lent_page_by_page(protector: &Protector) {
    let arena = arena(protector, 4 * HUGE);
    assert_eq!((arena.page(), arena.len()), (HUGE, 4 * HUGE));
    let mut buffer = arena.buffer(4 * HUGE).unwrap();
    for round in 0..3 {
        buffer.bytes_mut(0..4 * HUGE).unwrap().fill(round);
        let before = protector.counters();
        let lent = buffer.lend(HUGE - 1..2 * HUGE + 1).unwrap();
        assert_eq!(protector.counters().protects, before.protects + 1);
        assert_eq!(protector.counters().lent_bytes, 3 * HUGE as u64);
        let place = Place(buffer.as_ptr().unwrap());
        // At both ends of what is lent, far from the bytes of the loan.
        let writers = [0, 3 * HUGE - 1].map(|at| Writer::poking(place.at(at), b'n'));
        Writer::poking(place.at(4 * HUGE - 1), b'f').join();
        waits(protector, before.waits + 2);
        assert!(writers.iter().all(|writer| writer.sleeps()));
        assert!(buffer.try_bytes_mut(0..1).is_err());
        assert!(lent.bytes().iter().all(|byte| *byte == round));
        drop(lent);
        writers.into_iter().for_each(Writer::join);
        let bytes = buffer.bytes();
        assert_eq!((bytes[0], bytes[1]), (b'n', round));
        assert_eq!(bytes[3 * HUGE - 1], b'n');
        assert_eq!(bytes[4 * HUGE - 1], b'f');
    }
}

fn the_kernel_writes(protector: &Protector) {
    let arena = arena(protector, HUGE);
    let buffer = arena.buffer(HUGE).unwrap();
    let place = Place(buffer.as_ptr().unwrap()).at(HUGE / 2);
    let lent = buffer.lend(0..HUGE).unwrap();
    if protector.mode() == Mode::Full {
        let waited = protector.counters().waits;
        let reader = Writer::doing(move || read_into(place));
        waits(protector, waited + 1);
        assert!(reader.sleeps());
        assert_eq!(lent.bytes()[HUGE / 2], 0);
        drop(lent);
        reader.join().unwrap();
        assert_eq!(buffer.bytes()[HUGE / 2], b'k');
    } else {
        assert_eq!(read_into(place), Err(rustix::io::Errno::FAULT));
        assert_eq!(lent.bytes()[HUGE / 2], 0);
    }
}

fn the_thread_that_polls_is_kept_away(protector: &Protector) {
    let arena = arena(protector, HUGE);
    let mut buffer = arena.buffer(HUGE).unwrap();
    let lent = buffer.lend(0..1).unwrap();
    let polls = PollingThread::enter();
    assert_eq!(buffer.as_ptr().err(), Some(ProtectError::Polling));
    assert_eq!(buffer.bytes_mut(5..6), Err(ProtectError::Lent));
    assert!(arena.has_wanted());
    drop(lent);
    assert!(!arena.has_wanted());
    buffer.bytes_mut(5..6).unwrap().fill(b'n');
    drop(polls);
    assert_eq!(buffer.lend(5..6).unwrap().bytes(), b"n");
}

fn a_device_reads_what_was_lent(protector: &Protector) {
    let arena = arena(protector, 2 * HUGE);
    let Some(mut device) = Device::new(&arena) else {
        return;
    };
    let mut buffer = arena.buffer(2 * HUGE).unwrap();
    for round in 1..20 {
        buffer.bytes_mut(0..2 * HUGE).unwrap().fill(round);
        let lent = buffer.lend(HUGE - 100..HUGE + 100).unwrap();
        let place = Place(buffer.as_ptr().unwrap());
        let waited = protector.counters().waits;
        let writer = Writer::poking(place.at(HUGE), b'n');
        waits(protector, waited + 1);
        assert_eq!(device.read(&lent), [round; 200]);
        drop(lent);
        writer.join();
        assert_eq!(device.read(&buffer.lend(HUGE..HUGE + 1).unwrap()), b"n");
    }
}

fn a_limit_counts_whole_pages(protector: &Protector) {
    let arena = arena(protector, 2 * HUGE);
    let buffer = arena.buffer(2 * HUGE).unwrap();
    // One page has been forgotten in each round of the tests before this one, or none.
    let lent = protector.counters().lent_bytes;
    protector.set_limit(lent + HUGE as u64);
    let across = buffer.lend(HUGE - 1..HUGE + 1);
    assert_eq!(across.err(), Some(ProtectError::OverLimit));
    assert_eq!(buffer.lend(0..HUGE).unwrap().len(), HUGE);
    protector.set_limit(u64::MAX);
}

fn what_is_forgotten_stays(protector: &Protector) {
    let arena = arena(protector, HUGE);
    let mut buffer = arena.buffer(HUGE).unwrap();
    buffer.bytes_mut(0..3).unwrap().copy_from_slice(b"old");
    let lent = buffer.lend(0..3).unwrap();
    let bytes: *const [u8] = lent.bytes();
    std::mem::forget(lent);
    drop((buffer, arena));
    // SAFETY: they stay for ever.
    assert_eq!(unsafe { &*bytes }, b"old");
}

fn memory_that_nobody_has_touched(protector: &Protector) {
    for memory in Mapping::huge(HUGE) {
        let place = memory.place();
        let memory = protector.register(memory).unwrap();
        let waited = protector.counters().waits;
        let lent = memory.lend(0..HUGE).unwrap();
        let writer = Writer::poking(place.at(HUGE - 1), b'n');
        waits(protector, waited + 1);
        assert!(writer.sleeps());
        assert!(lent.bytes().iter().all(|byte| *byte == 0));
        drop(lent);
        writer.join();
        assert_eq!(memory.lend(HUGE - 1..HUGE).unwrap().bytes(), b"n");
    }
}

fn a_part_of_a_page_is_refused(protector: &Protector) {
    for mut memory in Mapping::huge(2 * HUGE) {
        let kind = format!("{:?}", memory.kind());
        let whole = memory.len();
        memory.shorten(HUGE + 4096);
        let refused = protector.register(memory).err();
        let page = HUGE;
        assert_eq!(
            refused,
            Some(ProtectError::Unaligned { page }),
            "{kind} of {whole}"
        );
    }
}

fn with_too_few_there_are_others(protector: &Protector) {
    let free = number("free_hugepages").unwrap() as usize;
    let arena = protector.huge_arena((free + 1) * HUGE).unwrap();
    assert_eq!(arena.page(), HUGE);
    assert!(!has_flag(arena.program(), "ht"), "there are not so many");
    let buffer = arena.buffer(1).unwrap();
    let lent = buffer.lend(0..1).unwrap();
    assert_eq!(lent.bytes(), [0]);
}
