//! What is sent: bytes in a sealed memory file, which nobody can change while they are lent.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use pagewire_vfio::SealedFile;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;

use super::args::Args;
use crate::error::{Failure, shown};

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
    pub(crate) fn prepare(args: &Args, stop: &AtomicBool) -> Result<(Self, SealedFile), Failure> {
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

    /// Bytes to send, as far as that can be told before anything is read; 0 where it cannot.
    pub(crate) fn expected_len(args: &Args) -> u64 {
        match &args.file {
            Some(path) => std::fs::metadata(path).map_or(0, |file| file.len()),
            None => args.size,
        }
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
    Failure::usage(format!("cannot hold the input in memory: {error}"))
}

fn copy_file(path: &Path, sink: &mut Sink<'_>) -> Result<(), Failure> {
    let refused =
        |why: std::io::Error| Failure::usage(format!("cannot send {}: {why}", shown(path)));
    // Asked before it is opened: to open a device may do something.
    let metadata = std::fs::metadata(path).map_err(refused)?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Err(refused(ErrorKind::IsADirectory.into()));
    }
    if !kind.is_file() && !kind.is_fifo() {
        let what = "it is neither a regular file nor a pipe";
        return Err(refused(std::io::Error::other(what)));
    }
    // A file of /proc says that it has 0 bytes: what it has is seen when it is read.
    sink.check_room(metadata.len()).map_err(out_of_memory)?;
    // Not blocking: a pipe to which nobody writes must not keep Ctrl-C waiting.
    let mut options = File::options();
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = options
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(refused)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        if kind.is_fifo() && !await_bytes(&file, sink).map_err(refused)? {
            return Ok(());
        }
        match file.read(&mut chunk) {
            Ok(0) if sink.len == 0 => return Err(refused(std::io::Error::other("it is empty"))),
            Ok(0) => return Ok(()),
            Ok(read) => sink
                .push(chunk.get(..read).unwrap_or_default())
                .map_err(out_of_memory)?,
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(refused(error)),
        }
    }
}

/// Waits until a pipe has bytes or has ended; `false` if the user wants no more of it.
fn await_bytes(pipe: &File, sink: &Sink<'_>) -> std::io::Result<bool> {
    let interval = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    while !sink.stopped() {
        match poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&interval)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// Bytes that new memory may take on this machine. As much as the system says that it can give
/// without swapping, less an eighth for everybody else; no bound if it does not say.
fn memory_available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib.saturating_mul(1024 / 8 * 7))
}

fn generate(size: u64, seed: u64, sink: &mut Sink<'_>) -> std::io::Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    sink.check_room(size)?;
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
    /// Bytes of the stream so far.
    len: u64,
    /// Bytes that the memory file may have.
    room: u64,
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
            room: memory_available(),
            piece: slice.map(|bytes| bytes as usize),
            scratch: Vec::new(),
            stop,
        })
    }

    /// Whether the user wants no more of it.
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the memory file can hold `len` bytes of stream, and the gaps between pieces.
    fn check_room(&self, len: u64) -> std::io::Result<()> {
        let gaps = self.piece.map_or(0, |piece| len / piece as u64);
        let takes = gaps.saturating_mul(GAP as u64).saturating_add(len);
        if takes <= self.room {
            return Ok(());
        }
        let (takes, room) = (takes >> 20, self.room >> 20);
        Err(std::io::Error::other(format!(
            "{takes} MiB or more are needed, {room} MiB can be had"
        )))
    }

    fn push(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        if self.stopped() {
            return Err(ErrorKind::Interrupted.into());
        }
        self.check_room(self.len + bytes.len() as u64)?;
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

    fn seal(self) -> std::io::Result<(Input, SealedFile)> {
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&self.file, seals)?;
        let sealed = SealedFile::new(self.file.into()).map_err(std::io::Error::other)?;
        let len = self.len;
        let piece = self.piece.unwrap_or(usize::MAX);
        let stride = self.piece.map_or(0, |piece| piece + GAP);
        Ok((Input { len, piece, stride }, sealed))
    }
}

#[cfg(test)]
mod tests {
    use pagewire::hal::FixedBytes;

    use super::*;

    fn stream(input: &Input, sealed: &SealedFile) -> Vec<u8> {
        let mut all = Vec::new();
        while (all.len() as u64) < input.len {
            let (start, len) = input.piece_at(all.len() as u64);
            assert!(len > 0);
            all.extend_from_slice(&sealed.bytes()[start..start + len]);
        }
        all
    }

    fn filled(slice: Option<u32>, len: u64) -> (Input, SealedFile) {
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
        assert!(generate(1 << 20, 7, &mut sink).is_err());
    }

    #[test]
    fn memory_has_a_bound() {
        let stop = AtomicBool::new(false);
        let mut sink = Sink::new(Some(64), &stop).unwrap();
        assert!(sink.room > 1 << 20, "{}", sink.room);
        sink.room = 1 << 20;
        // As much again as the stream lies between its pieces.
        assert!(sink.check_room(1 << 19).is_ok());
        assert!(sink.check_room((1 << 19) + 64).is_err());
        assert!(generate(1 << 20, 7, &mut sink).is_err());
        assert_eq!(sink.len, 0, "seen before it was begun");
        sink.push(&[0; 1 << 19]).unwrap();
        assert!(sink.push(&[0; 64]).is_err());
    }
}
