//! The other end of the bare-metal example: an ordinary program on the host's own TCP.
//!
//! Listens on a free port of 127.0.0.1, prints it, takes one connection, reads it to its end,
//! compares what came with the file that the image was built with, and answers. The exit status
//! says the same.

mod content;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// A sender that is silent for so long is dead.
const SILENCE: Duration = Duration::from_secs(30);
/// More than this is not what was announced.
const MOST: u64 = 2 * content::LEN as u64;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("receiver: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("port {}", listener.local_addr()?.port());
    let (mut stream, _) = listener.accept()?;
    let begin = Instant::now();
    let stream_bytes = receive(&mut stream)?;
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{} bytes in {seconds:.3} s by the host's clock",
        stream_bytes.len()
    );
    let verdict = judge(&stream_bytes);
    let (answer, equal) = match &verdict {
        Ok(digest) => (format!("equal {digest}"), true),
        Err(why) => (format!("different: {why}"), false),
    };
    println!("{answer}");
    writeln!(stream, "{answer}")?;
    Ok(equal)
}

fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(SILENCE))?;
    let mut bytes = Vec::new();
    stream.take(MOST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The digest of the file that came, if it is what was announced and what was built.
fn judge(stream: &[u8]) -> Result<String, String> {
    let end = stream.iter().position(|byte| *byte == b'\n');
    let (line, file) = stream.split_at(end.ok_or("no first line")? + 1);
    let digest = hex(&Sha256::digest(file));
    if line != format!("pagewire {} {digest}\n", file.len()).as_bytes() {
        return Err(format!(
            "{} bytes of SHA-256 {digest} came, announced was {:?}",
            file.len(),
            String::from_utf8_lossy(line)
        ));
    }
    let expected = expected();
    if file.len() != expected.len() {
        return Err(format!("{} bytes, {} built", file.len(), expected.len()));
    }
    match file.iter().zip(&expected).position(|(a, b)| a != b) {
        Some(at) => Err(format!("byte {at} is not what was built")),
        None => Ok(digest),
    }
}

/// The file, made once more.
fn expected() -> Vec<u8> {
    let mut bytes = vec![0; content::PAGES * content::PAGE];
    for (page, target) in bytes.chunks_mut(content::PAGE).enumerate() {
        content::fill(page, target);
    }
    bytes.truncate(content::LEN);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let file = expected();
        let digest = hex(&Sha256::digest(&file));
        let mut stream = format!("pagewire {} {digest}\n", file.len()).into_bytes();
        stream.extend(file);
        stream
    }

    #[test]
    fn only_the_file_is_equal() {
        assert!(judge(&stream()).is_ok());
        let mut flipped = stream();
        *flipped.last_mut().unwrap() ^= 1;
        assert!(judge(&flipped).unwrap_err().contains("announced"));
        let mut short = stream();
        short.pop();
        assert!(judge(&short).unwrap_err().contains("announced"));
        let other = [1; 5];
        let digest = hex(&Sha256::digest(other));
        let mut told = format!("pagewire 5 {digest}\n").into_bytes();
        told.extend(other);
        assert!(judge(&told).unwrap_err().contains("built"));
        assert!(judge(b"no line").is_err());
    }

    #[test]
    fn no_two_neighbours_lie_side_by_side() {
        let mut slots: Vec<_> = (0..content::PAGES).map(content::slot).collect();
        assert!(slots.windows(2).all(|pair| pair[1] != pair[0] + 1));
        slots.sort_unstable();
        assert!(slots.into_iter().eq(0..content::PAGES));
    }
}
