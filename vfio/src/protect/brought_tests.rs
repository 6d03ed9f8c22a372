use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pagewire_hal::Ledger;
use pagewire_models::{Host, HostConfig};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use super::test_support::{Place, Writer, protectors, waits};
use super::*;
use crate::pages::HUGE;

/// What a caller might bring.
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    mapped: usize,
    file: Option<(OwnedFd, u64)>,
    huge: bool,
    gone: Arc<AtomicBool>,
}

// SAFETY: the mapping belongs to the value.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

// SAFETY: the memory is mapped by `map` and unmapped by `drop`; the tests write as they may.
unsafe impl MappedMemory for Mapping {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.len
    }

    fn kind(&self) -> MemoryKind<'_> {
        match &self.file {
            Some((file, offset)) => MemoryKind::Shared {
                file: file.as_fd(),
                offset: *offset,
            },
            None if self.huge => MemoryKind::Huge { page: HUGE },
            None => MemoryKind::Private,
        }
    }
}

impl Mapping {
    fn map(len: usize, flags: MapFlags, file: Option<(OwnedFd, u64)>) -> Result<Self, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let place = std::ptr::null_mut();
        let base = match &file {
            // SAFETY: a new mapping.
            Some((file, offset)) => unsafe {
                rustix::mm::mmap(place, len, access, flags, file, *offset)
            },
            // SAFETY: a new mapping.
            None => unsafe { rustix::mm::mmap_anonymous(place, len, access, flags) },
        }?;
        Ok(Self {
            base: NonNull::new(base.cast()).unwrap(),
            len,
            mapped: len,
            file,
            huge: flags.contains(MapFlags::HUGETLB),
            gone: Arc::default(),
        })
    }

    fn private(len: usize) -> Self {
        Self::map(len, MapFlags::PRIVATE, None).unwrap()
    }

    /// Not from the beginning of its file.
    fn shared(len: usize) -> Self {
        let file = rustix::fs::memfd_create("brought", MemfdFlags::CLOEXEC).unwrap();
        let offset = rustix::param::page_size() as u64;
        rustix::fs::ftruncate(&file, len as u64 + offset).unwrap();
        Self::map(len, MapFlags::SHARED, Some((file, offset))).unwrap()
    }

    /// Private and shared huge pages; none where none are set aside.
    pub(super) fn huge(len: usize) -> Vec<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::HUGE_2MB;
        let file = rustix::fs::memfd_create(
            "brought",
            MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
        );
        let shared = file.and_then(|file| {
            rustix::fs::ftruncate(&file, len as u64)?;
            Self::map(len, MapFlags::SHARED, Some((file, 0)))
        });
        let both = [Self::map(len, flags, None), shared];
        let there: Vec<_> = both.into_iter().flatten().collect();
        if there.is_empty() {
            println!("no huge pages are set aside (vm.nr_hugepages)");
        }
        there
    }

    /// Says that it has less bytes.
    pub(super) fn shorten(&mut self, len: usize) {
        self.len = len;
    }

    pub(super) fn place(&self) -> Place {
        Place(self.base)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
        // SAFETY: the mapping is the value's.
        unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.mapped) }.unwrap();
    }
}

fn poke(place: Place, byte: u8) {
    // SAFETY: each test pokes memory that it has, and that `MappedMemory` lets it write.
    unsafe { place.0.write_volatile(byte) };
}

fn peek(place: Place) -> u8 {
    // SAFETY: as above.
    unsafe { place.0.read_volatile() }
}

/// Each kind, two pages of it.
fn each() -> Vec<Mapping> {
    let page = rustix::param::page_size();
    let mut all = vec![Mapping::private(2 * page), Mapping::shared(2 * page)];
    all.extend(Mapping::huge(2 * HUGE));
    all
}

#[test]
fn a_writer_sleeps_until_the_release_whatever_the_memory_is() {
    for protector in protectors() {
        for memory in each() {
            lend(&protector, memory);
        }
        let counters = protector.counters();
        assert_eq!(
            (counters.registered_bytes, counters.protected_bytes),
            (0, 0)
        );
    }
}

pub(super) fn lend(protector: &Protector, memory: Mapping) {
    let (place, gone) = (memory.place(), Arc::clone(&memory.gone));
    let before = protector.counters().waits;
    for at in 0..memory.len {
        poke(place.at(at), b'o');
    }
    let memory = protector.register(memory).unwrap();
    let page = memory.page();
    assert_eq!((memory.len(), memory.memory().len()), (2 * page, 2 * page));
    let host = Host::new(HostConfig::default());
    let region = host.register(memory.clone()).unwrap();
    let mut ledger = Ledger::new(host.domain(), 64, host.granule());
    let id = ledger.register(region).unwrap();
    let loan = ledger.lend(id, page - 1, 2).unwrap();
    let lent = memory.lend(0..1).unwrap();
    let writer = Writer::poking(place.at(page), b'n');
    waits(protector, before + 1);
    assert!(memory.has_wanted());
    let mut told = 0;
    memory.wanted(&mut |range| told += range.len());
    assert_eq!(told, page);
    assert_eq!(memory.try_make_writable(0..1), Err(ProtectError::Lent));
    assert!(writer.sleeps());
    assert_eq!(
        (ledger.bytes(&loan).unwrap(), lent.bytes()),
        (&b"oo"[..], &b"o"[..])
    );
    ledger.give_back(loan);
    writer.join();
    assert_eq!(peek(place.at(page)), b'n');
    let loan = ledger.lend(id, page - 1, 2).unwrap();
    assert_eq!(ledger.bytes(&loan).unwrap(), b"on");
    ledger.give_back(loan);
    // Without a fault.
    let faults = protector.counters().faults;
    drop(lent);
    memory.make_writable(0..2 * page).unwrap();
    poke(place, b'x');
    assert_eq!(protector.counters().faults, faults);
    let lent = memory.lend(0..2).unwrap();
    assert_eq!(lent.bytes(), b"xo");
    drop((memory, ledger, host));
    assert!(!gone.load(Ordering::SeqCst));
    assert_eq!(lent.bytes(), b"xo");
    drop(lent);
    assert!(gone.load(Ordering::SeqCst));
}

#[test]
fn the_thread_that_polls_writes_to_private_memory_and_is_kept_from_other() {
    for protector in protectors() {
        for memory in each() {
            let place = memory.place();
            let private = matches!(memory.kind(), MemoryKind::Private);
            poke(place, b'o');
            let memory = protector.register(memory).unwrap();
            let lent = memory.lend(0..1).unwrap();
            let _polls = PollingThread::enter();
            if private {
                assert_eq!(memory.as_ptr(), Ok(place.0));
                poke(place, b'n');
                memory.make_writable(1..2).unwrap();
                assert_eq!((lent.bytes(), peek(place)), (&b"o"[..], b'n'));
                drop(lent);
                assert_eq!(memory.lend(0..1).unwrap().bytes(), b"n");
            } else {
                assert_eq!(memory.as_ptr(), Err(ProtectError::Polling));
                assert_eq!(memory.make_writable(0..1), Err(ProtectError::Lent));
                drop(lent);
                assert_eq!(memory.make_writable(0..1), Ok(()));
                poke(place, b'n');
                assert_eq!(peek(place), b'n');
            }
        }
    }
}

#[test]
fn shared_memory_stays_that_of_its_file() {
    let protector = Protector::open(Choice::Best).unwrap();
    let page = rustix::param::page_size();
    let memory = Mapping::shared(page);
    let file = memory.file.as_ref().unwrap().0.try_clone().unwrap();
    let place = memory.place();
    let memory = protector.register(memory).unwrap();
    drop(memory.lend(0..1).unwrap());
    poke(place.at(5), b'n');
    let mut byte = [0];
    rustix::io::pread(&file, &mut byte, page as u64 + 5).unwrap();
    assert_eq!(byte, *b"n");
}

#[test]
fn memory_that_does_not_begin_and_end_with_a_page_is_refused() {
    let protector = Protector::open(Choice::Best).unwrap();
    let page = rustix::param::page_size();
    let unaligned = Some(ProtectError::Unaligned { page });
    for (at, len) in [(0, page + 1), (1, page), (0, 1)] {
        let mut memory = Mapping::private(4 * page);
        let (base, whole) = (memory.base, memory.len);
        (memory.base, memory.len) = (memory.place().at(at).0, len);
        let gone = Arc::clone(&memory.gone);
        let memory = Skewed(Some(memory), base, whole);
        assert_eq!(protector.register(memory).err(), unaligned);
        assert!(gone.load(Ordering::SeqCst));
    }
}

/// A mapping that says something else of itself.
struct Skewed(Option<Mapping>, NonNull<u8>, usize);

// SAFETY: as for `Mapping`.
unsafe impl Send for Skewed {}
// SAFETY: as for `Mapping`.
unsafe impl Sync for Skewed {}

// SAFETY: what it says is refused.
unsafe impl MappedMemory for Skewed {
    fn base(&self) -> NonNull<u8> {
        self.0.as_ref().unwrap().base
    }

    fn len(&self) -> usize {
        self.0.as_ref().unwrap().len
    }

    fn kind(&self) -> MemoryKind<'_> {
        MemoryKind::Private
    }
}

impl Drop for Skewed {
    fn drop(&mut self) {
        if let Some(mut memory) = self.0.take() {
            (memory.base, memory.len) = (self.1, self.2);
        }
    }
}
