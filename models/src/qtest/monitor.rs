//! QEMU's monitor (QMP): only what plugs the cable in and out.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// More than any message that is met here.
const LONGEST_MESSAGE: u64 = 64 * 1024;
/// Messages that may come before the reply: events.
const MOST_EVENTS: usize = 100;

/// A connection to the monitor.
#[derive(Debug)]
pub(super) struct Monitor(BufReader<UnixStream>);

impl Monitor {
    /// Connects to the monitor at `path` and takes up its offer.
    pub(super) fn connect(path: &Path, limit: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        let mut monitor = Self(BufReader::new(stream));
        monitor.message()?;
        monitor.execute(r#"{"execute":"qmp_capabilities"}"#)?;
        Ok(monitor)
    }

    /// Plugs the cable of network device `name` in or out. `name` needs no escaping in JSON.
    pub(super) fn set_link(&mut self, name: &str, up: bool) -> io::Result<()> {
        self.execute(&format!(
            r#"{{"execute":"set_link","arguments":{{"name":"{name}","up":{up}}}}}"#
        ))
    }

    fn execute(&mut self, command: &str) -> io::Result<()> {
        self.0
            .get_mut()
            .write_all(format!("{command}\n").as_bytes())?;
        for _ in 0..MOST_EVENTS {
            let message = self.message()?;
            // QEMU writes each message on one line, and the reply begins with its kind.
            if message.starts_with(r#"{"return""#) {
                return Ok(());
            }
            if message.starts_with(r#"{"error""#) {
                let what = format!(
                    "QEMU's monitor refused: {}",
                    message.trim().escape_default()
                );
                return Err(io::Error::new(ErrorKind::InvalidData, what));
            }
        }
        Err(io::Error::new(
            ErrorKind::InvalidData,
            "QEMU's monitor gave no reply",
        ))
    }

    fn message(&mut self) -> io::Result<String> {
        let mut line = String::new();
        (&mut self.0).take(LONGEST_MESSAGE).read_line(&mut line)?;
        if line.ends_with('\n') {
            Ok(line)
        } else {
            Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "QEMU's monitor has ended",
            ))
        }
    }
}
