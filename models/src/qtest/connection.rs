//! The qtest protocol: lines of text over a socket, one reply to each command (QEMU
//! `system/qtest.c`, its comment at the top).

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::host::lock;

/// More than any reply to the commands that are used here.
const LONGEST_REPLY: u64 = 256;

/// The socket to a QEMU; a clone is for the same one.
///
/// The first error ends it: what a late reply belongs to could not be told any more. From then
/// on nothing is answered, as by a device that has been removed.
#[derive(Clone)]
pub(super) struct Connection(Arc<Mutex<Option<Session>>>);

/// An open connection, held alone: for commands that belong together.
pub(super) struct Session {
    stream: BufReader<UnixStream>,
    line: String,
}

impl Connection {
    /// Speaks on `stream`; QEMU gets `limit` for each reply.
    pub(super) fn new(stream: UnixStream, limit: Duration) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Self(Arc::new(Mutex::new(Some(Session {
            stream: BufReader::new(stream),
            line: String::new(),
        })))))
    }

    /// Sends one command and returns the number in its reply (0 if that has none); `None` if
    /// there is no QEMU any more.
    pub(super) fn command(&self, command: fmt::Arguments<'_>) -> Option<u64> {
        self.together(|session| session.command(command))
    }

    /// Sends commands between which no other thread's commands get.
    pub(super) fn together<T>(
        &self,
        commands: impl FnOnce(&mut Session) -> io::Result<T>,
    ) -> Option<T> {
        let mut open = lock(&self.0);
        match commands(open.as_mut()?) {
            Ok(value) => Some(value),
            Err(error) => {
                *open = None;
                log::warn!("QEMU does not answer any more: {error}");
                None
            }
        }
    }

    /// Ends the connection.
    pub(super) fn close(&self) {
        *lock(&self.0) = None;
    }

    /// Whether no error has ended the connection so far.
    pub(super) fn is_open(&self) -> bool {
        lock(&self.0).is_some()
    }
}

impl Session {
    /// Sends one command and returns the number in its reply, 0 if that has none.
    pub(super) fn command(&mut self, command: fmt::Arguments<'_>) -> io::Result<u64> {
        use fmt::Write as _;
        self.line.clear();
        // Writing to a string does not fail.
        let _ = writeln!(self.line, "{command}");
        self.stream.get_mut().write_all(self.line.as_bytes())?;
        self.line.clear();
        let mut reply = (&mut self.stream).take(LONGEST_REPLY);
        match reply.read_line(&mut self.line) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "it has ended")),
            Ok(_) => number(&self.line).ok_or_else(|| {
                let reply = self.line.trim_end().escape_default();
                io::Error::new(ErrorKind::InvalidData, format!("`{command}`: {reply}"))
            }),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let what = format!("no reply in time to `{command}`");
                Err(io::Error::new(ErrorKind::TimedOut, what))
            }
            Err(error) => Err(error),
        }
    }
}

/// The number in a reply that says OK: hexadecimal with 0x before it, or decimal.
fn number(reply: &str) -> Option<u64> {
    let rest = reply.strip_prefix("OK")?;
    if !rest.ends_with('\n') || !rest.starts_with([' ', '\n']) {
        return None;
    }
    let word = rest.trim();
    match word.strip_prefix("0x") {
        _ if word.is_empty() => Some(0),
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn numbers_are_read_and_nothing_else() {
        assert_eq!(number("OK\n"), Some(0));
        assert_eq!(number("OK 0x00000000ffffffff\n"), Some(0xffff_ffff));
        assert_eq!(number("OK 1000000\n"), Some(1_000_000));
        for wrong in [
            "",
            "OK",
            "OK 0x12",
            "OK 0xg\n",
            "OKAY\n",
            "FAIL Unknown\n",
            "OK 0x1 2\n",
        ] {
            assert_eq!(number(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn commands_go_out_as_lines_and_replies_come_back() {
        let (near, far) = UnixStream::pair().unwrap();
        let connection = Connection::new(near, LIMIT).unwrap();
        let qemu = std::thread::spawn(move || {
            let mut lines = BufReader::new(far);
            let mut seen = Vec::new();
            for reply in ["OK 0x12\n", "OK\n"] {
                let mut line = String::new();
                lines.read_line(&mut line).unwrap();
                seen.push(line);
                lines.get_mut().write_all(reply.as_bytes()).unwrap();
            }
            seen
        });
        assert_eq!(
            connection.command(format_args!("readl {:#x}", 0x10)),
            Some(0x12)
        );
        assert_eq!(connection.command(format_args!("writel 0x10 0x1")), Some(0));
        assert_eq!(qemu.join().unwrap(), ["readl 0x10\n", "writel 0x10 0x1\n"]);
        // QEMU has gone: nothing is answered, now and later.
        assert!(connection.is_open());
        assert_eq!(connection.command(format_args!("readl 0x10")), None);
        assert!(!connection.is_open());
        assert_eq!(connection.command(format_args!("readl 0x10")), None);
    }

    #[test]
    fn an_endless_reply_ends_the_connection() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let connection = Connection::new(near, LIMIT).unwrap();
        far.write_all(&[b'O'; 4096]).unwrap();
        assert_eq!(connection.command(format_args!("readl 0x10")), None);
        assert!(!connection.is_open());
    }

    #[test]
    fn silence_ends_the_connection() {
        let (near, _far) = UnixStream::pair().unwrap();
        let connection = Connection::new(near, Duration::from_millis(20)).unwrap();
        assert_eq!(connection.command(format_args!("readl 0x10")), None);
        assert!(!connection.is_open());
    }
}
