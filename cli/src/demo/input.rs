//! What is sent: bytes in a sealed memory file, which nobody can change while they are lent.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::{Mmap, MmapOptions};
use pagewire::hal::FixedBytes;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::args::Args;
use crate::error::Failure;

/// A mapped memory file, sealed against writing, growing and shrinking: immutable for every
/// process, for as long as it exists.
#[derive(Debug)]
pub(crate) struct Sealed {
    map: Mmap,
}

// SAFETY: the mapping stays where it is until it is dropped with the value; `F_SEAL_WRITE` and
// `F_SEAL_SHRINK` keep its bytes as they are, against every process (memfd_create(2)).
unsafe impl FixedBytes for Sealed {
    fn bytes(&self) -> &[u8] {
        &self.map
    }
}

/// The stream to send, and where in memory its parts lie.
#[derive(Debug)]
pub(crate) struct Input {
    /// Bytes in the stream.
    pub(crate) len: u64,
    /// Bytes in a piece; the whole stream if it is not cut.
    piece: usize,
    /// Bytes from the start of one piece to the start of the next.
    stride: usize,
}

/// Between two pieces lie this many bytes that are not sent, so that the pieces are no
/// neighbours, for the CPU or for the device.
const GAP: usize = 64;

/// How much is read, generated or written at once.
const CHUNK: usize = 1 << 20;

impl Input {
    /// Reads the file, or generates bytes from the seed, into sealed memory; cut into pieces if
    /// that is asked for.
    pub(crate) fn prepare(args: &Args, stop: &AtomicBool) -> Result<(Self, Sealed), Failure> {
        let mut sink = Sink::new(args.slice, stop)?;
        let written = match &args.file {
            Some(path) => copy_file(path, &mut sink),
            None => generate(args.size, args.seed, &mut sink).map_err(out_of_memory),
        };
        if sink.stopped() {
            return Err(Failure::interrupted());
        }
        written?;
        sink.seal().map_err(out_of_memory)
    }

    /// Where the byte at `position` of the stream lies in memory, and how many bytes follow it
    /// there that are the next of the stream.
    pub(crate) fn piece_at(&self, position: u64) -> (usize, usize) {
        let position = position as usize;
        let within = position % self.piece;
        let start = position / self.piece * self.stride + within;
        (
            start,
            (self.piece - within).min(self.len as usize - position),
        )
    }
}

fn out_of_memory(error: std::io::Error) -> Failure {
    Failure::failed(format!("cannot hold the input in memory: {error}"))
}

fn copy_file(path: &Path, sink: &mut Sink<'_>) -> Result<(), Failure> {
    let refused =
        |why: std::io::Error| Failure::usage(format!("cannot send {}: {why}", path.display()));
    let mut file = File::open(path).map_err(refused)?;
    if file.metadata().map_err(refused)?.is_dir() {
        return Err(refused(std::io::ErrorKind::IsADirectory.into()));
    }
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) if sink.len == 0 => return Err(refused(std::io::Error::other("it is empty"))),
            Ok(0) => return Ok(()),
            Ok(read) => sink
                .push(chunk.get(..read).unwrap_or_default())
                .map_err(out_of_memory)?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted && !sink.stopped() => {}
            Err(error) => return Err(refused(error)),
        }
    }
}

fn generate(size: u64, seed: u64, sink: &mut Sink<'_>) -> std::io::Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut chunk = vec![0; CHUNK];
    let mut left = size;
    while left > 0 {
        let len = left.min(CHUNK as u64) as usize;
        random.fill(&mut chunk);
        sink.push(chunk.get(..len).unwrap_or_default())?;
        left -= len as u64;
    }
    Ok(())
}

/// The memory file while it is written.
struct Sink<'a> {
    file: File,
    len: u64,
    piece: Option<usize>,
    scratch: Vec<u8>,
    stop: &'a AtomicBool,
}

impl<'a> Sink<'a> {
    fn new(slice: Option<u32>, stop: &'a AtomicBool) -> Result<Self, Failure> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("pagewire-input", flags).map_err(|e| out_of_memory(e.into()))?;
        Ok(Self {
            file: file.into(),
            len: 0,
            piece: slice.map(|bytes| bytes as usize),
            scratch: Vec::new(),
            stop,
        })
    }

    /// Whether the user wants no more of it.
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn push(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        if self.stopped() {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let Some(piece) = self.piece else {
            self.len += bytes.len() as u64;
            return self.file.write_all(bytes);
        };
        self.scratch.clear();
        while !bytes.is_empty() {
            let room = piece - (self.len % piece as u64) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.scratch.extend_from_slice(now);
            self.len += now.len() as u64;
            if now.len() == room {
                self.scratch.resize(self.scratch.len() + GAP, 0);
            }
            bytes = later;
        }
        self.file.write_all(&self.scratch)
    }

    fn seal(self) -> std::io::Result<(Input, Sealed)> {
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&self.file, seals)?;
        // SAFETY: the file has just been sealed: nobody can change or truncate it.
        let shared = unsafe { MmapOptions::new().map(&self.file) };
        let map = match shared {
            Ok(map) => map,
            // Before Linux 6.7 a sealed file cannot be mapped shared, not even to read.
            // SAFETY: as above; copies of its pages are never written.
            Err(_) => unsafe { MmapOptions::new().map_copy_read_only(&self.file) }?,
        };
        let len = self.len;
        let piece = self.piece.unwrap_or(usize::MAX);
        let stride = self.piece.map_or(0, |piece| piece + GAP);
        Ok((Input { len, piece, stride }, Sealed { map }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(input: &Input, sealed: &Sealed) -> Vec<u8> {
        let mut all = Vec::new();
        while (all.len() as u64) < input.len {
            let (start, len) = input.piece_at(all.len() as u64);
            assert!(len > 0);
            all.extend_from_slice(&sealed.bytes()[start..start + len]);
        }
        all
    }

    fn filled(slice: Option<u32>, len: u64) -> (Input, Sealed) {
        let stop = AtomicBool::new(false);
        let mut sink = Sink::new(slice, &stop).unwrap();
        generate(len, 7, &mut sink).unwrap();
        sink.seal().unwrap()
    }

    #[test]
    fn pieces_are_the_stream() {
        let (whole, bytes) = filled(None, 3_000_000);
        let expected = stream(&whole, &bytes);
        assert_eq!(expected.len(), 3_000_000);
        for slice in [1, 63, 700, 4096, 1 << 20] {
            let (cut, memory) = filled(Some(slice), 3_000_000);
            assert_eq!(stream(&cut, &memory), expected, "slice {slice}");
            let (start, _) = cut.piece_at(u64::from(slice));
            assert_eq!(start, slice as usize + GAP);
        }
    }

    #[test]
    fn a_sealed_file_refuses_writers() {
        let stop = AtomicBool::new(false);
        let mut sink = Sink::new(None, &stop).unwrap();
        sink.push(b"immutable").unwrap();
        let mut again = sink.file.try_clone().unwrap();
        let (_, sealed) = sink.seal().unwrap();
        assert!(again.write_all(b"x").is_err());
        assert!(again.set_len(1).is_err());
        assert_eq!(sealed.bytes(), b"immutable");
    }

    #[test]
    fn it_stops_when_asked() {
        let stop = AtomicBool::new(true);
        let mut sink = Sink::new(None, &stop).unwrap();
        assert!(generate(1 << 40, 7, &mut sink).is_err());
    }
}
