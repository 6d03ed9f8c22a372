//! The receiving end of `demo --peer linux`: a child process that takes connections from the
//! kernel's TCP and says what arrived.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::demo::Stream;
use crate::demo::loss;
use crate::error::{Failure, print};

/// Options of the child.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Address to listen on
    #[arg(long)]
    address: Ipv4Addr,
    /// Port to listen on
    #[arg(long)]
    port: u16,
    /// Connections to take
    #[arg(long)]
    connections: u16,
    /// Interface whose frames are counted
    #[arg(long)]
    interface: String,
    /// Percent of segments that are lost
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
}

/// What the child prints when all connections have ended, as one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Received {
    /// What came.
    pub(crate) streams: Vec<Stream>,
    /// Frames that the interface has received meanwhile.
    pub(crate) frames: u64,
    /// Their bytes, Ethernet header included.
    pub(crate) frame_bytes: u64,
    /// Segments that the kernel has thrown away, where it was told to: almost all as it was told, some
    /// perhaps as they were no use (sent again in vain, beyond the window).
    pub(crate) lost: u64,
    /// CPU time of the child, kernel included, in seconds.
    pub(crate) cpu_seconds: f64,
}

/// The line that says that the child listens.
pub(crate) const READY: &str = "listening";

/// Runs the child.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let address = SocketAddrV4::new(args.address, args.port);
    let listener = TcpListener::bind(address)
        .map_err(|error| Failure::failed(format!("cannot listen on {address}: {error}")))?;
    if args.loss > 0.0 {
        loss::lose(&listener, args.loss)
            .map_err(|error| Failure::failed(format!("cannot have the kernel lose: {error}")))?;
    }
    // A real interface has counted before.
    let (frames_before, bytes_before) = frames(&args.interface)?;
    print(READY)?;
    end_with_parent();
    let mut readers = Vec::new();
    for _ in 0..args.connections {
        let (stream, from) = listener
            .accept()
            .map_err(|error| Failure::failed(format!("no connection on {address}: {error}")))?;
        ends_with_us(&stream, true).map_err(|error| {
            Failure::failed(format!("cannot set options of a connection: {error}"))
        })?;
        readers.push(std::thread::spawn(move || read(stream, from.port())));
    }
    let streams = readers.into_iter().map(|reader| {
        let panicked = |_| Err(Failure::failed("a reader panicked"));
        reader.join().unwrap_or_else(panicked)
    });
    let streams: Vec<(Stream, u64)> = streams.collect::<Result<_, _>>()?;
    let lost = match args.loss > 0.0 {
        true => lost_by(&listener)? + streams.iter().map(|(_, lost)| lost).sum::<u64>(),
        // A full socket throws segments away too.
        false => 0,
    };
    let (frames, frame_bytes) = frames(&args.interface)?;
    let received = Received {
        streams: streams.into_iter().map(|(stream, _)| stream).collect(),
        lost,
        frames: frames.saturating_sub(frames_before),
        frame_bytes: frame_bytes.saturating_sub(bytes_before),
        cpu_seconds: cpu_seconds(),
    };
    let line = serde_json::to_string(&received)
        .map_err(|error| Failure::failed(format!("cannot report: {error}")))?;
    print(&line)
}

/// Segments for a socket that were lost.
fn lost_by(socket: &impl AsFd) -> Result<u64, Failure> {
    loss::lost_by(socket)
        .map_err(|error| Failure::failed(format!("cannot ask what the kernel has lost: {error}")))
}

/// Takes a stream to its end; says also how many of its segments were lost.
fn read(mut stream: TcpStream, port: u16) -> Result<(Stream, u64), Failure> {
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut chunk = vec![0; 1 << 18];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => {
                hash.update(chunk.get(..read).unwrap_or_default());
                bytes += read as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Failure::failed(format!("the connection broke: {error}")));
            }
        }
    }
    // Now it ends in order; the sender acknowledges that, or is gone.
    ends_with_us(&stream, false)
        .map_err(|error| Failure::failed(format!("cannot end a connection: {error}")))?;
    let read = Stream {
        port,
        bytes,
        sha256: hex(&hash.finalize()),
    };
    Ok((read, lost_by(&stream)?))
}

/// How long the kernel tries to end a connection in order when the sender does not answer.
const PATIENCE_MS: u32 = 2000;

/// Whether a connection is reset when its socket is closed, as it is when this process ends. If the
/// sender has died the kernel would go on trying for minutes to end it in order, and keep the network
/// namespace, and with it the interface, until then.
fn ends_with_us(stream: &TcpStream, ends: bool) -> rustix::io::Result<()> {
    use rustix::net::sockopt::{set_socket_linger, set_tcp_user_timeout};
    set_tcp_user_timeout(stream, PATIENCE_MS)?;
    set_socket_linger(stream, ends.then_some(Duration::ZERO))
}

/// Frames that `interface` has received, and their bytes: from the table of proc(5) for this
/// network namespace.
fn frames(interface: &str) -> Result<(u64, u64), Failure> {
    const TABLE: &str = "/proc/net/dev";
    let table = std::fs::read_to_string(TABLE)
        .map_err(|error| Failure::failed(format!("cannot read {TABLE}: {error}")))?;
    received_by(&table, interface)
        .ok_or_else(|| Failure::failed(format!("{TABLE} does not tell of {interface}")))
}

/// The line of an interface is its name, a colon, and numbers: bytes and packets received first.
fn received_by(table: &str, interface: &str) -> Option<(u64, u64)> {
    let mut lines = table.lines().filter_map(|line| line.trim().split_once(':'));
    let (_, numbers) = lines.find(|(name, _)| *name == interface)?;
    let mut numbers = numbers.split_whitespace().map(|text| text.parse().ok());
    let bytes = numbers.next()??;
    Some((numbers.next()??, bytes))
}

/// Standard input is a pipe from the parent: when it ends, however the parent ended, so do we.
fn end_with_parent() {
    std::thread::spawn(|| {
        let mut byte = [0];
        while !matches!(std::io::stdin().read(&mut byte), Ok(0) | Err(_)) {}
        // The parent may just be closing the pipe before it reads our report.
        std::thread::sleep(Duration::from_millis(200));
        std::process::exit(1);
    });
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// CPU time of this process so far, user and kernel, in seconds.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_of_an_interface_are_read() {
        let table = "Inter-|   Receive        |  Transmit\n \
            face |bytes    packets errs |bytes\n    \
            lo:       1       2    0\n  pagewire0: 4500000      100    3 0\n";
        assert_eq!(received_by(table, "pagewire0"), Some((100, 4_500_000)));
        assert_eq!(received_by(table, "pagewire"), None);
        assert_eq!(received_by("pagewire0: x 1", "pagewire0"), None);
        assert_eq!(received_by("pagewire0: 1", "pagewire0"), None);
    }
}
