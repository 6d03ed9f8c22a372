//! What is printed: a line for each request.

use std::net::SocketAddrV4;
use std::time::Duration;

use pagewire::hal::Instant;
use pagewire_cli::http::{Request, Status};
use serde::Serialize;

use crate::error::{Failure, print};

/// A request, from its arrival to the last byte of its response.
#[derive(Debug)]
pub(super) struct Entry {
    peer: SocketAddrV4,
    /// Method, target and version as they came; `None` if it was no request.
    line: Option<(String, String, u8)>,
    status: Status,
    /// Bytes of the response.
    pub(super) bytes: u64,
    /// Of these, bytes that the peer has.
    pub(super) delivered: u64,
    begin: Instant,
}

impl Entry {
    pub(super) fn new(
        peer: SocketAddrV4,
        request: Option<&Request>,
        status: Status,
        begin: Instant,
    ) -> Self {
        let line = request.map(|request| {
            let (method, target) = (&request.method_text, &request.target_text);
            (method.clone(), target.clone(), request.version)
        });
        Self {
            peer,
            line,
            status,
            bytes: 0,
            delivered: 0,
            begin,
        }
    }
}

/// All of them, and where they go.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) json: bool,
    pub(super) totals: Totals,
}

/// What has happened.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Totals {
    pub(super) connections: u64,
    pub(super) requests: u64,
    /// Responses that did not arrive whole.
    pub(super) broken: u64,
    /// Bytes of responses that arrived.
    pub(super) bytes: u64,
    /// Bytes that the device fetched where they were.
    pub(super) shared_bytes: u64,
    /// Bytes of payload that the CPU copied.
    pub(super) copied_bytes: u64,
    /// The most bytes of files that were locked in memory.
    pub(super) most_locked_bytes: u64,
}

#[derive(Serialize)]
struct RequestEvent<'a> {
    event: &'static str,
    peer: String,
    method: Option<&'a str>,
    target: Option<&'a str>,
    status: u16,
    bytes: u64,
    delivered: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct ListeningEvent<'a> {
    event: &'static str,
    url: &'a str,
    device: &'a str,
}

#[derive(Serialize)]
struct EndEvent {
    event: &'static str,
    #[serde(flatten)]
    totals: Totals,
}

impl Journal {
    pub(super) fn begin(
        &self,
        url: &str,
        device: &str,
        hint: Option<String>,
    ) -> Result<(), Failure> {
        if self.json {
            return object(&ListeningEvent {
                event: "listening",
                url,
                device,
            });
        }
        print(&format!("listening at {url} ({device})"))?;
        match hint {
            Some(hint) => print(&hint),
            None => Ok(()),
        }
    }

    /// A response is over.
    pub(super) fn write(&mut self, entry: &Entry, now: Instant) -> Result<(), Failure> {
        let totals = &mut self.totals;
        totals.requests += 1;
        totals.bytes += entry.delivered;
        let is_broken = entry.delivered < entry.bytes;
        totals.broken += u64::from(is_broken);
        let took = now.saturating_since(entry.begin);
        if !self.json {
            return print(&text(entry, took));
        }
        object(&RequestEvent {
            event: "request",
            peer: entry.peer.to_string(),
            method: entry.line.as_ref().map(|(method, ..)| method.as_str()),
            target: entry.line.as_ref().map(|(_, target, _)| target.as_str()),
            status: entry.status.code(),
            bytes: entry.bytes,
            delivered: entry.delivered,
            seconds: took.as_secs_f64(),
        })
    }

    pub(super) fn end(&self) -> Result<(), Failure> {
        let totals = self.totals;
        if self.json {
            return object(&EndEvent {
                event: "end",
                totals,
            });
        }
        print(&format!(
            "{} requests on {} connections, {} bytes arrived, {} responses broke off; {} bytes were \
             shared, {} copied, at most {} locked in memory",
            totals.requests,
            totals.connections,
            totals.bytes,
            totals.broken,
            totals.shared_bytes,
            totals.copied_bytes,
            totals.most_locked_bytes
        ))
    }
}

fn object(event: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(event);
    print(&text.map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?)
}

fn text(entry: &Entry, took: Duration) -> String {
    let line = match &entry.line {
        // What a client sends does not steer the terminal.
        Some((method, target, version)) => {
            let target = target.escape_debug();
            format!("{} {target} HTTP/1.{version}", method.escape_debug())
        }
        None => "-".into(),
    };
    let mut text = format!(
        "{} \"{line}\" {} {} bytes in {:.3} s",
        entry.peer,
        entry.status.code(),
        entry.delivered,
        took.as_secs_f64()
    );
    if entry.delivered < entry.bytes {
        text.push_str(&format!(", broke off before {}", entry.bytes));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use pagewire_cli::http::{Parsed, parse};
    use std::net::Ipv4Addr;

    #[test]
    fn a_client_does_not_steer_the_terminal() {
        let bytes = "GET /a\u{9b}31m\"b HTTP/1.1\r\nHost: a\r\n\r\n";
        let peer = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        let Parsed::Request(request, _) = parse(bytes.as_bytes()) else {
            panic!("no request");
        };
        let entry = Entry::new(peer, Some(&request), Status::NotFound, Instant::ZERO);
        let text = text(&entry, Duration::from_millis(12));
        let expected = "127.0.0.1:1 \"GET /a\\u{9b}31m\\\"b HTTP/1.1\" 404 0 bytes in 0.012 s";
        assert_eq!(text, expected);
    }
}
