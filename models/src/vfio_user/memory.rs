//! The client's memory, as the device reaches it: by address, in maps of any size.
//!
//! What is contiguous for the device arrives from QEMU as a map for each page, all of the same
//! file, so an access is split across maps, and a file is mapped here once.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use pagewire_vfio_user::{DmaMap, DmaUnmap, Errno};

use super::file::{Identity, SharedFile};
use crate::DmaFault;

/// Maps that a client may have: more than any guest was seen to make (25,000).
const MOST_MAPS: usize = 1 << 20;
/// Files that a client may share: each is a descriptor of ours.
const MOST_FILES: usize = 512;

/// A range of device addresses; its first is the key.
#[derive(Clone, Debug)]
struct Map {
    len: u64,
    offset: u64,
    readable: bool,
    writable: bool,
    /// Without one the addresses are taken, and nothing is there.
    file: Option<Arc<SharedFile>>,
}

/// What the device reaches.
#[derive(Debug, Default)]
pub(super) struct Memory {
    maps: BTreeMap<u64, Map>,
    files: HashMap<Identity, Weak<SharedFile>>,
}

/// Whose memory was read, as far as can be told from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The device may only read it: a registered region.
    Region,
    /// It may write it as well.
    Memory,
}

/// A part of an access, in one map.
struct Piece<'a> {
    file: &'a SharedFile,
    offset: u64,
    len: usize,
    kind: Kind,
}

impl Memory {
    /// Takes a map.
    pub(super) fn map(&mut self, map: DmaMap, file: Option<OwnedFd>) -> Result<(), Errno> {
        let last = map.address + (map.len - 1);
        let before = self.maps.range(..=last).next_back();
        if before.is_some_and(|(start, before)| start + (before.len - 1) >= map.address) {
            return Err(Errno::EXIST);
        }
        if self.maps.len() >= MOST_MAPS {
            return Err(Errno::NOSPC);
        }
        let file = match file {
            Some(file) => Some(self.file(file, &map)?),
            None => None,
        };
        if map.writable && file.as_ref().is_some_and(|file| !file.is_writable()) {
            return Err(Errno::ACCESS);
        }
        let entry = Map {
            len: map.len,
            offset: map.offset,
            readable: map.readable,
            writable: map.writable,
            file,
        };
        self.maps.insert(map.address, entry);
        Ok(())
    }

    /// The file, mapped once for all of its maps.
    fn file(&mut self, file: OwnedFd, map: &DmaMap) -> Result<Arc<SharedFile>, Errno> {
        let identity = SharedFile::identify(&file)?;
        let known = self.files.get(&identity).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.has(map.offset, map.len)) {
            return Ok(known);
        }
        self.files.retain(|_, file| file.strong_count() > 0);
        if self.files.len() >= MOST_FILES {
            return Err(Errno::MFILE);
        }
        let new = Arc::new(SharedFile::new(file, identity)?);
        if !new.has(map.offset, map.len) {
            return Err(Errno::INVAL);
        }
        self.files.insert(identity, Arc::downgrade(&new));
        Ok(new)
    }

    /// Gives addresses back, also parts of maps.
    pub(super) fn unmap(&mut self, unmap: DmaUnmap) {
        let DmaUnmap::Range { address, len } = unmap else {
            self.maps.clear();
            return;
        };
        let last = address + (len - 1);
        let begins_before = self.maps.range(..address).next_back();
        let first = begins_before.map_or(address, |(start, _)| *start);
        let hit: Vec<u64> = self
            .maps
            .range(first..=last)
            .map(|(start, _)| *start)
            .collect();
        for start in hit {
            let Some(map) = self.maps.remove(&start) else {
                continue;
            };
            let end = start + (map.len - 1);
            if start < address {
                let len = map.len.min(address - start);
                self.maps.insert(start, Map { len, ..map.clone() });
            }
            if end > last && start <= last {
                let cut = last + 1 - start;
                let rest = Map {
                    len: map.len - cut,
                    offset: map.offset + cut,
                    ..map
                };
                self.maps.insert(last + 1, rest);
            }
        }
    }

    /// How many maps there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.maps.len()
    }

    /// The beginning of an access of `len` bytes: as much of it as one map has.
    fn piece(&self, address: u64, len: usize, write: bool) -> Result<Piece<'_>, DmaFault> {
        let fault = DmaFault { address, write };
        let (start, map) = self.maps.range(..=address).next_back().ok_or(fault)?;
        let within = address - start;
        let allowed = if write { map.writable } else { map.readable };
        let file = map.file.as_deref().filter(|_| allowed);
        if within >= map.len {
            return Err(fault);
        }
        Ok(Piece {
            file: file.ok_or(fault)?,
            offset: map.offset + within,
            len: usize::try_from(map.len - within).map_or(len, |rest| rest.min(len)),
            kind: if map.writable {
                Kind::Memory
            } else {
                Kind::Region
            },
        })
    }

    /// Fills `target`; whose memory it begins in.
    pub(super) fn read(&self, address: u64, target: &mut [u8]) -> Result<Kind, DmaFault> {
        let first = self.piece(address, target.len(), false)?;
        let (kind, mut piece, mut address, mut rest) = (first.kind, first, address, target);
        loop {
            let (part, behind) = rest.split_at_mut(piece.len);
            if !piece.file.read(piece.offset, part) {
                return Err(DmaFault {
                    address,
                    write: false,
                });
            }
            if behind.is_empty() {
                return Ok(kind);
            }
            address = next(address, piece.len, false)?;
            piece = self.piece(address, behind.len(), false)?;
            rest = behind;
        }
    }

    /// Writes `source`, or nothing if any byte has no place.
    pub(super) fn write(&self, address: u64, source: &[u8]) -> Result<(), DmaFault> {
        let first = self.piece(address, source.len(), true)?;
        if first.len < source.len() {
            self.check(address, source.len())?;
        }
        let (mut piece, mut address, mut rest) = (first, address, source);
        loop {
            let (part, behind) = rest.split_at(piece.len);
            if !piece.file.write(piece.offset, part) {
                return Err(DmaFault {
                    address,
                    write: true,
                });
            }
            if behind.is_empty() {
                return Ok(());
            }
            address = next(address, piece.len, true)?;
            piece = self.piece(address, behind.len(), true)?;
            rest = behind;
        }
    }

    /// Whether all of a write has its place.
    fn check(&self, mut address: u64, mut len: usize) -> Result<(), DmaFault> {
        loop {
            let piece = self.piece(address, len, true)?;
            len -= piece.len;
            if len == 0 {
                return Ok(());
            }
            address = next(address, piece.len, true)?;
        }
    }
}

/// Where an access goes on behind `len` bytes; there is nothing behind the last address.
fn next(address: u64, len: usize, write: bool) -> Result<u64, DmaFault> {
    let next = address.checked_add(len as u64);
    next.ok_or(DmaFault {
        address: u64::MAX,
        write,
    })
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
