//! Tests by the sections of RFC 9110 and RFC 9112.

mod files;
mod heads;
mod responses;

use std::time::{Duration, SystemTime};

use super::{Document, Found, Parsed, Request, Response, Status, parse, refuse, respond};

/// Seconds since 1970: Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110's examples.
const NOW: u64 = 784_111_777;
const NOW_TEXT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const BEFORE_TEXT: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const AFTER_TEXT: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Some regular file, and a made-up length and date.
fn document(len: u64, modified: SystemTime) -> Found {
    Found::Document(Document {
        file: tempfile::tempfile().unwrap(),
        len,
        modified: Some(modified),
        media_type: "text/plain".into(),
    })
}

/// A request that is complete, and no more.
fn request(text: &str) -> Request {
    match parse(text.as_bytes()) {
        Parsed::Request(request, len) if len == text.len() => *request,
        other => panic!("{text:?}: {other:?}"),
    }
}

/// `GET /` with these fields.
fn get(fields: &str) -> Request {
    request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
}

fn status_of(text: &str) -> Option<Status> {
    match parse(text.as_bytes()) {
        Parsed::Bad(bad) => Some(bad.status),
        Parsed::Request(request, _) => Some(answer(&request).status),
        Parsed::Incomplete => None,
    }
}

/// The answer for a file of 100 bytes that was changed a day ago.
fn answer(request: &Request) -> Response {
    let response = respond(request, document(100, at(NOW - 86400)), at(NOW));
    check(&response, request.method == super::Method::Head);
    response
}

fn field<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(&response.bytes).unwrap();
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    head.lines()
        .find_map(|line| line.strip_prefix(&format!("{name}: ")))
}

/// What holds for every response: its head is well-formed, and its content is as long as it says.
fn check(response: &Response, is_head: bool) {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Response::new(&mut fields);
    let len = parsed.parse(&response.bytes).unwrap().unwrap();
    assert_eq!(parsed.version, Some(1));
    assert_eq!(parsed.code, Some(response.status.code()));
    assert_eq!(parsed.reason, Some(response.status.reason()));
    let count = |name: &str| {
        parsed
            .headers
            .iter()
            .filter(|field| field.name == name)
            .count()
    };
    for name in ["Date", "Server"] {
        assert_eq!(count(name), 1, "{name}");
    }
    for field in parsed.headers.iter() {
        assert_eq!(count(field.name), 1, "{}", field.name);
    }
    let text = len..response.bytes.len();
    let file = response
        .sent
        .as_ref()
        .map_or(0, |sent| sent.range.end - sent.range.start);
    let content = text.len() as u64 + file;
    match field(response, "Content-Length") {
        Some(said) if !is_head => assert_eq!(said, content.to_string()),
        Some(_) => assert_eq!(content, 0),
        None => {
            assert_eq!(response.status, Status::NotModified);
            assert_eq!(content, 0);
        }
    }
    assert_eq!(
        response.closes,
        field(response, "Connection") == Some("close")
    );
}
