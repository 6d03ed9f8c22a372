//! Memory that has two addresses: one where the program writes, and a read-only one, where it is
//! lent from.
//!
//! Both show the same pages of a file that has no name (a memfd), and protection is of the first
//! only. So when a page is lent and its writer must not sleep, another page takes its place at the
//! address of the program alone: whoever reads at the other address, the device or the processor,
//! has the old bytes, and pointers there stay valid. Later the new bytes go to the old page, which
//! is then put back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::pages::Pages;

/// The two addresses. Does not own what the program has at its own.
#[derive(Debug)]
pub(crate) struct Twin {
    program: NonNull<u8>,
    len: usize,
    /// Not there if both are the same: what is lent is then read where it is written.
    view: Option<Pages>,
    files: Option<Files>,
    /// In transparent huge pages.
    collapsed: bool,
}

/// What is needed to put other pages in the place of some.
#[derive(Debug)]
struct Files {
    home: OwnedFd,
    /// As long as the memory: a page has its stand-in at its own offset. What nobody uses takes no
    /// memory.
    spare: OwnedFd,
}

// SAFETY: the pointers are only handed out, and the memory at the second belongs to the value.
unsafe impl Send for Twin {}
// SAFETY: as above.
unsafe impl Sync for Twin {}

impl Twin {
    /// For pages of a file, all of them.
    pub(crate) fn new(pages: &Pages, len: usize) -> Result<Self, Errno> {
        let file = pages.source().file.ok_or(Errno::INVAL)?;
        let files = if pages.is_huge() {
            // Another huge page would have to be set aside.
            None
        } else {
            Some(Files::new(file, len)?)
        };
        Ok(Self {
            program: pages.base(),
            len,
            view: Some(Pages::view(file, 0, len)?),
            files,
            collapsed: pages.is_collapsed(),
        })
    }

    /// For private memory: puts pages of a file with the same bytes in its place.
    ///
    /// # Safety
    /// `len` initialised bytes from `base` on, whole pages, are memory of the caller's that he may
    /// map anew, and nobody writes to them before this returns.
    pub(crate) unsafe fn adopt(base: NonNull<u8>, len: usize) -> Result<Self, Errno> {
        let home = crate::pages::nameless(len, false)?;
        // SAFETY: the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts(base.as_ptr(), len) };
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += retry_on_intr(|| rustix::io::pwrite(&home, rest, at as u64))?;
        }
        let view = Pages::view(home.as_fd(), 0, len)?;
        let files = Files::new(home.as_fd(), len)?;
        let twin = Self {
            program: base,
            len,
            view: Some(view),
            files: Some(files),
            collapsed: false,
        };
        twin.show(&home, 0, len)?;
        Ok(twin)
    }

    /// For memory that is a part of a file, shared, which others may have mapped too: no page can be
    /// put in the place of another.
    ///
    /// # Safety
    /// `len` bytes from `base` on are those of the file from `offset` on.
    pub(crate) unsafe fn shared(
        base: NonNull<u8>,
        len: usize,
        file: BorrowedFd<'_>,
        offset: u64,
    ) -> Result<Self, Errno> {
        Ok(Self {
            program: base,
            len,
            view: Some(Pages::view(file, offset, len)?),
            files: None,
            collapsed: false,
        })
    }

    /// For memory that has one address only.
    pub(crate) fn single(base: NonNull<u8>, len: usize) -> Self {
        Self {
            program: base,
            len,
            view: None,
            files: None,
            collapsed: false,
        }
    }

    /// Where the program writes.
    pub(crate) fn program(&self) -> NonNull<u8> {
        self.program
    }

    /// Where it is lent from.
    pub(crate) fn home(&self) -> NonNull<u8> {
        self.view.as_ref().map_or(self.program, Pages::base)
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether pages can be brought elsewhere.
    pub(crate) fn can_depart(&self) -> bool {
        self.files.is_some()
    }

    /// Whether it is in transparent huge pages.
    pub(crate) fn is_collapsed(&self) -> bool {
        self.collapsed
    }

    /// Whether bytes lie in the memory.
    fn check(&self, start: usize, len: usize) -> Result<(), Errno> {
        let end = start.checked_add(len).ok_or(Errno::INVAL)?;
        if end <= self.len {
            Ok(())
        } else {
            Err(Errno::INVAL)
        }
    }

    /// Unmaps pages where the program has them: they stay in their file, and whoever reads or writes
    /// there next has them again. `start` and `len` are whole pages.
    pub(crate) fn unmap(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.check(start, len)?;
        // What is not ours may be something else than its owner says, and lose its bytes by this.
        if self.files.is_none() {
            return Err(Errno::OPNOTSUPP);
        }
        let place = self.program.as_ptr().wrapping_byte_add(start);
        // SAFETY: the range lies in the memory, all of which are pages of files of ours, mapped
        // shared, that have them as long as the value exists. So no byte is lost.
        unsafe { rustix::mm::madvise(place.cast(), len, Advice::LinuxDontNeed) }
    }

    /// Puts other pages with the same bytes in the place of some, for the program, and watched by
    /// nobody. `start` and `len` are whole pages, which nobody can write now.
    pub(crate) fn depart(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.check(start, len)?;
        let files = self.files.as_ref().ok_or(Errno::OPNOTSUPP)?;
        copy(&files.home, &files.spare, start, len)?;
        self.show(&files.spare, start, len)
    }

    /// Undoes [`depart`](Self::depart): the program has the old pages again, with the bytes that it
    /// has written meanwhile, and watched by nobody. Nobody can write to either now.
    pub(crate) fn return_home(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.check(start, len)?;
        let files = self.files.as_ref().ok_or(Errno::OPNOTSUPP)?;
        copy(&files.spare, &files.home, start, len)?;
        self.show(&files.home, start, len)?;
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(errno) = rustix::fs::fallocate(&files.spare, hole, start as u64, len as u64) {
            log::warn!("{len} bytes that nobody uses cannot be given back: {errno}");
        }
        Ok(())
    }

    /// Shows a part of a file at the address of the program. `start` and `len` have been checked.
    fn show(&self, file: &OwnedFd, start: usize, len: usize) -> Result<(), Errno> {
        let place = self.program.as_ptr().wrapping_byte_add(start);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the range lies in the memory, which the program has lent us the right to map. What
        // takes its place has the same bytes, and the kernel puts it there at once: nobody finds
        // nothing there.
        unsafe { rustix::mm::mmap(place.cast(), len, access, flags, file, start as u64) }?;
        // SAFETY: as above; takes no byte away.
        let advised = unsafe { rustix::mm::madvise(place.cast(), len, Advice::LinuxDontFork) };
        if let Err(errno) = advised {
            log::warn!("a child process will share memory that is lent: {errno}");
        }
        // As all of it has been advised, so that it is one mapping with its neighbours again, which is
        // what can be mapped anew in one call. Not all kernels have it.
        // SAFETY: as above.
        let _ = unsafe { rustix::mm::madvise(place.cast(), len, Advice::LinuxHugepage) };
        Ok(())
    }
}

impl Files {
    fn new(home: BorrowedFd<'_>, len: usize) -> Result<Self, Errno> {
        let home = home.try_clone_to_owned();
        let home = home.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE))?;
        let spare = rustix::fs::memfd_create("pagewire-spare", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&spare, len as u64)?;
        Ok(Self { home, spare })
    }
}

/// Copies bytes from one file to the same place of another.
fn copy(from: &OwnedFd, to: &OwnedFd, start: usize, len: usize) -> Result<(), Errno> {
    let mut piece = [0; 4096];
    let end = start + len;
    let mut at = start;
    while at < end {
        let wanted = piece.len().min(end - at);
        let piece = piece.get_mut(..wanted).unwrap_or_default();
        let read = retry_on_intr(|| rustix::io::pread(from, &mut *piece, at as u64))?;
        let piece = piece.get(..read).unwrap_or_default();
        let written = retry_on_intr(|| rustix::io::pwrite(to, piece, at as u64))?;
        if written == 0 {
            return Err(Errno::IO);
        }
        at += written;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that one address has.
    fn bytes(base: NonNull<u8>, len: usize) -> Vec<u8> {
        // SAFETY: each test asks for what is mapped, and writes only in between.
        unsafe { std::slice::from_raw_parts(base.as_ptr(), len) }.to_vec()
    }

    fn write(twin: &Twin, at: usize, byte: u8) {
        // SAFETY: the memory of a test, of which no slice is in use.
        unsafe {
            twin.program()
                .as_ptr()
                .wrapping_add(at)
                .write_volatile(byte)
        };
    }

    #[test]
    fn what_is_away_is_written_without_a_change_at_home() {
        let page = rustix::param::page_size();
        let len = 4 * page;
        let pages = Pages::shared(len).unwrap();
        let twin = Twin::new(&pages, len).unwrap();
        assert!(twin.can_depart() && twin.len() == len);
        write(&twin, page, b'o');
        assert_eq!(bytes(twin.home(), len)[page], b'o');
        twin.depart(page, 2 * page).unwrap();
        assert_eq!(bytes(twin.home(), len), bytes(twin.program(), len));
        write(&twin, page, b'n');
        write(&twin, 3 * page - 1, b'n');
        write(&twin, 0, b'0');
        let home = bytes(twin.home(), len);
        assert_eq!((home[0], home[page], home[3 * page - 1]), (b'0', b'o', 0));
        assert_eq!(bytes(twin.program(), len)[page], b'n');
        twin.return_home(page, 2 * page).unwrap();
        let home = bytes(twin.home(), len);
        assert_eq!(home, bytes(twin.program(), len));
        assert_eq!((home[page], home[3 * page - 1]), (b'n', b'n'));
        write(&twin, page, b'x');
        assert_eq!(bytes(twin.home(), len)[page], b'x');
        // The stand-ins take no memory any more.
        let spare = rustix::fs::fstat(&twin.files.as_ref().unwrap().spare);
        assert_eq!(spare.unwrap().st_blocks, 0);
    }

    #[test]
    fn nothing_behind_the_memory_is_touched() {
        let page = rustix::param::page_size();
        let pages = Pages::shared(4 * page).unwrap();
        let twin = Twin::new(&pages, 3 * page).unwrap();
        write(&twin, 3 * page, b'o');
        for (start, len) in [(3 * page, page), (2 * page, 2 * page), (page, usize::MAX)] {
            assert_eq!(twin.unmap(start, len), Err(Errno::INVAL));
            assert_eq!(twin.depart(start, len), Err(Errno::INVAL));
            assert_eq!(twin.return_home(start, len), Err(Errno::INVAL));
        }
        assert_eq!(bytes(twin.program(), 4 * page)[3 * page], b'o');
    }

    #[test]
    fn who_has_returned_is_one_mapping_with_its_neighbours() {
        let page = rustix::param::page_size();
        let pages = Pages::shared(4 * page).unwrap();
        let twin = Twin::new(&pages, 4 * page).unwrap();
        // The mapping that begins where the memory does, to its end.
        let first = || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            let wanted = format!("{:x}-", twin.program().addr());
            let ours = maps.lines().find(|line| line.starts_with(&wanted));
            ours.unwrap().split(' ').next().unwrap().to_owned()
        };
        let before = first();
        for _ in 0..3 {
            twin.depart(page, page).unwrap();
            assert_ne!(first(), before);
            twin.return_home(page, page).unwrap();
            assert_eq!(first(), before);
        }
    }

    #[test]
    fn a_child_gets_neither_of_them() {
        let page = rustix::param::page_size();
        let pages = Pages::shared(3 * page).unwrap();
        let twin = Twin::new(&pages, 3 * page).unwrap();
        twin.depart(page, page).unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let away = twin.program().addr().get() + page;
        for start in [twin.program().addr().get(), away, twin.home().addr().get()] {
            let wanted = format!("{start:x}-");
            let ours = smaps.lines().skip_while(|line| !line.starts_with(&wanted));
            let flags = ours.skip(1).find(|line| line.starts_with("VmFlags:"));
            let flags = flags.expect("the mapping has flags");
            assert!(flags.split_whitespace().any(|flag| flag == "dc"), "{flags}");
        }
    }
}
