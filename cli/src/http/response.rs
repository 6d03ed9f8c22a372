//! Responses: the bytes that are made here, and what of a file follows them.

use std::fmt::Write;
use std::fs::File;
use std::ops::Range;
use std::time::SystemTime;

use super::condition::{self, Outcome};
use super::{Bad, Document, Found, Method, Request, Status};

/// A response.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: Status,
    /// The head, and the content of what is no file.
    pub bytes: Vec<u8>,
    /// The content, if it is of a file.
    pub sent: Option<Sent>,
    /// The connection ends with this response, as it says.
    pub closes: bool,
}

/// A range of a file.
#[derive(Debug)]
pub struct Sent {
    /// The file.
    pub file: File,
    /// The bytes of it; one at least.
    pub range: Range<u64>,
}

/// Answers a request with what was found. `now` is for the field Date.
#[must_use]
pub fn respond(request: &Request, found: Found, now: SystemTime) -> Response {
    let mut head = Head::new(request.method == Method::Head, now);
    head.closes = !request.keep_alive;
    head.says_keep_alive = request.version == 0;
    if request.method == Method::Other {
        head.field("Allow", "GET, HEAD");
        return head.with_text(Status::MethodNotAllowed);
    }
    match found {
        Found::Document(document) => of_document(head, request, document),
        Found::Elsewhere(place) => {
            head.field("Location", &place);
            head.with_text(Status::MovedPermanently)
        }
        Found::Nothing => head.with_text(Status::NotFound),
        Found::Forbidden => head.with_text(Status::Forbidden),
        Found::Busy => head.with_text(Status::Unavailable),
    }
}

/// Answers what is no request, or none that is served; the connection ends with it.
#[must_use]
pub fn refuse(bad: Bad, now: SystemTime) -> Response {
    let mut head = Head::new(bad.is_head, now);
    head.closes = true;
    head.with_text(bad.status)
}

fn of_document(mut head: Head, request: &Request, document: Document) -> Response {
    let Document { file, len, .. } = document;
    let modified = document.modified.and_then(condition::in_seconds);
    // A date that is still to come must not be sent, but now instead (RFC 9110 section 8.8.2.1).
    let modified = modified.map(|modified| modified.min(head.now));
    let outcome = condition::decide(request, len, modified, head.now);
    head.field("Accept-Ranges", "bytes");
    if let Some(modified) = modified {
        head.field("Last-Modified", &condition::stamp(modified));
    }
    let (status, range) = match outcome {
        Outcome::NotModified => return head.without_content(Status::NotModified),
        Outcome::Failed => return head.with_text(Status::PreconditionFailed),
        Outcome::Outside => {
            head.field("Content-Range", &format!("bytes */{len}"));
            return head.with_text(Status::RangeNotSatisfiable);
        }
        Outcome::Whole => (Status::Ok, 0..len),
        Outcome::Part(range) => {
            let last = range.end.saturating_sub(1);
            let field = format!("bytes {}-{last}/{len}", range.start);
            head.field("Content-Range", &field);
            (Status::PartialContent, range)
        }
    };
    head.field("Content-Type", &document.media_type);
    let count = range.end.saturating_sub(range.start);
    head.field("Content-Length", &count.to_string());
    let is_sent = !head.is_head && count > 0;
    Response {
        sent: is_sent.then_some(Sent { file, range }),
        ..head.without_content(status)
    }
}

/// A head in the making.
struct Head {
    is_head: bool,
    closes: bool,
    says_keep_alive: bool,
    /// Seconds since 1970.
    now: u64,
    fields: String,
}

impl Head {
    fn new(is_head: bool, now: SystemTime) -> Self {
        let now = condition::in_seconds(now).unwrap_or(0);
        let mut head = Self {
            is_head,
            closes: false,
            says_keep_alive: false,
            now,
            fields: String::new(),
        };
        head.field("Date", &condition::stamp(now));
        head.field("Server", concat!("pagewire/", env!("CARGO_PKG_VERSION")));
        head
    }

    /// Values are ours, or encoded: they have no line ends.
    fn field(&mut self, name: &str, value: &str) {
        // Writing to a `String` does not fail.
        let _ = write!(self.fields, "{name}: {value}\r\n");
    }

    fn without_content(mut self, status: Status) -> Response {
        if self.closes {
            self.field("Connection", "close");
        } else if self.says_keep_alive {
            self.field("Connection", "keep-alive");
        }
        Response {
            status,
            bytes: format!("HTTP/1.1 {status}\r\n{}\r\n", self.fields).into_bytes(),
            sent: None,
            closes: self.closes,
        }
    }

    /// The name of the status as content, for people.
    fn with_text(mut self, status: Status) -> Response {
        let text = format!("{status}\n");
        self.field("Content-Type", "text/plain; charset=utf-8");
        self.field("Content-Length", &text.len().to_string());
        let is_head = self.is_head;
        let mut response = self.without_content(status);
        if !is_head {
            response.bytes.extend_from_slice(text.as_bytes());
        }
        response
    }
}
