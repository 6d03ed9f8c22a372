//! What is a request, and where it ends.

use proptest::prelude::*;

use super::super::{MAX_FIELDS, MAX_HEAD, Method};
use super::*;

#[test]
fn rfc_9112_2_2_a_request_ends_with_its_empty_line() {
    let whole = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    for len in 0..whole.len() {
        assert_eq!(parse(&whole.as_bytes()[..len]), Parsed::Incomplete, "{len}");
    }
    let read = request(whole);
    assert_eq!(
        (read.method, read.version, read.keep_alive),
        (Method::Get, 1, true)
    );
    assert_eq!(
        (read.method_text.as_str(), read.target_text.as_str()),
        ("GET", "/a")
    );
    assert_eq!(
        status_of("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        Some(Status::Ok)
    );
    assert_eq!(
        status_of("GET / HTTP/1.1\nHost: a\n\n"),
        Some(Status::Ok),
        "bare LF"
    );
    for bad in [
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "GET /\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}",
    ] {
        assert_eq!(status_of(bad), Some(Status::BadRequest), "{bad:?}");
    }
}

#[test]
fn rfc_9112_9_3_2_requests_come_one_behind_the_other() {
    let first = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    let both = format!("{first}HEAD /b HTTP/1.1\r\nHost: a\r\n\r\nGET /c");
    let Parsed::Request(request, len) = parse(both.as_bytes()) else {
        panic!()
    };
    assert_eq!((request.target_text.as_str(), len), ("/a", first.len()));
    let Parsed::Request(request, next) = parse(&both.as_bytes()[len..]) else {
        panic!()
    };
    assert_eq!(
        (request.target_text.as_str(), request.method),
        ("/b", Method::Head)
    );
    assert_eq!(parse(&both.as_bytes()[len + next..]), Parsed::Incomplete);
}

#[test]
fn rfc_9112_2_3_other_versions() {
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "HTTP/3.0"] {
        let text = format!("GET / {version}\r\nHost: a\r\n\r\n");
        assert_eq!(
            status_of(&text),
            Some(Status::VersionNotSupported),
            "{version}"
        );
    }
    for version in ["HTTP/1", "HTTX/1.1", "http/1.1", "HTTP/a.b", "x"] {
        let text = format!("GET / {version}\r\nHost: a\r\n\r\n");
        assert_eq!(status_of(&text), Some(Status::BadRequest), "{version}");
    }
}

#[test]
fn rfc_9112_3_and_rfc_6585_5_heads_have_an_end() {
    let with = |target: usize, field: usize| {
        format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "t".repeat(target),
            "f".repeat(field)
        )
    };
    let overhead = with(0, 0).len();
    assert_eq!(status_of(&with(8000, 0)), Some(Status::Ok));
    assert_eq!(status_of(&with(0, MAX_HEAD - overhead)), Some(Status::Ok));
    assert_eq!(
        status_of(&with(0, MAX_HEAD - overhead + 1)),
        Some(Status::FieldsTooLarge)
    );
    assert_eq!(status_of(&with(MAX_HEAD, 0)), Some(Status::UriTooLong));
    assert_eq!(
        status_of(&"\r\n".repeat(MAX_HEAD)),
        Some(Status::BadRequest)
    );
    let many = |count| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X: 1\r\n".repeat(count - 1)
        )
    };
    assert_eq!(status_of(&many(MAX_FIELDS)), Some(Status::Ok));
    assert_eq!(
        status_of(&many(MAX_FIELDS + 1)),
        Some(Status::FieldsTooLarge)
    );
}

#[test]
fn rfc_9112_3_2_there_is_one_host() {
    assert_eq!(status_of("GET / HTTP/1.0\r\n\r\n"), Some(Status::Ok));
    for good in ["", "a", "a:80", "[::1]:80", "10.0.0.1", "xn--nxasmq6b"] {
        let text = format!("GET / HTTP/1.1\r\nhOsT: {good}\r\n\r\n");
        assert_eq!(status_of(&text), Some(Status::Ok), "{good}");
    }
    for bad in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: a@b\r\n",
    ] {
        let text = format!("GET / HTTP/1.1\r\n{bad}\r\n");
        assert_eq!(status_of(&text), Some(Status::BadRequest), "{bad}");
    }
    assert_eq!(
        status_of("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
        Some(Status::BadRequest)
    );
}

#[test]
fn rfc_9112_6_3_requests_have_no_content() {
    let status = |method: &str, fields: &str| {
        let text = format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        (
            status_of(&text),
            matches!(parse(text.as_bytes()), Parsed::Request(request, _) if request.keep_alive),
        )
    };
    let none = (Some(Status::Ok), true);
    assert_eq!(status("GET", "Content-Length: 0\r\n"), none);
    assert_eq!(
        status("GET", "Content-Length: 0, 0\r\nContent-Length: 0\r\n"),
        none
    );
    for some in [
        "Content-Length: 1\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: chunked\r\n",
    ] {
        assert_eq!(
            status("GET", some),
            (Some(Status::ContentTooLarge), false),
            "{some}"
        );
        assert_eq!(
            status("POST", some),
            (Some(Status::MethodNotAllowed), false),
            "{some}"
        );
    }
    // A proxy in between may see the end elsewhere than we do.
    for bad in [
        "Content-Length: 1, 2\r\n",
        "Content-Length: 0\r\nContent-Length: 1\r\n",
        "Content-Length: +0\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x0\r\n",
        "Content-Length: \r\n",
        "Content-Length: 0,\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    ] {
        for method in ["GET", "POST"] {
            assert_eq!(
                status(method, bad),
                (Some(Status::BadRequest), false),
                "{bad}"
            );
        }
    }
    let old = "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(status_of(old), Some(Status::BadRequest), "section 6.1");
}

#[test]
fn rfc_9112_9_3_when_a_connection_goes_on() {
    for (version, fields, goes_on) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: x, CLOSE\r\n", false),
        ("1.1", "Connection: x\r\nConnection:close ,y\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let request = request(&format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(request.keep_alive, goes_on, "HTTP/{version} {fields}");
        let expected = match (goes_on, version) {
            (false, _) => Some("close"),
            (true, "1.0") => Some("keep-alive"),
            (true, _) => None,
        };
        assert_eq!(
            field(&answer(&request), "Connection"),
            expected,
            "HTTP/{version} {fields}"
        );
    }
}

/// Bytes near to a request: pieces of some, in any order.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "GET ",
            "HEAD ",
            "POST ",
            "/",
            "/a",
            "%2e%2e",
            "..",
            "%00",
            "*",
            "http://a",
            "?q",
            " HTTP/1.1",
            " HTTP/1.0",
            " HTTP/2.0",
            "\r\n",
            "\r\n\r\n",
            "\n",
            "Host: a\r\n",
            "Host: ",
            "Range: ",
            "bytes=",
            "0-",
            "-1",
            "1-2",
            ",",
            "If-Range: ",
            "If-Modified-Since: ",
            "If-None-Match: *\r\n",
            "If-Match: ",
            "Connection: close\r\n",
            "Connection: keep-alive\r\n",
            "Content-Length: ",
            "0\r\n",
            "1\r\n",
            "Transfer-Encoding: chunked\r\n",
            NOW_TEXT,
            "GET / HTTP/1.1\r\nHost: a\r\n",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_lead_to_a_well_formed_answer(
        bytes in prop_oneof![pieces(), prop::collection::vec(any::<u8>(), 0..200)],
        len in any::<u64>(),
        modified in any::<i64>(),
        now in any::<u64>(),
    ) {
        let shift = Duration::from_secs(modified.unsigned_abs());
        let epoch = SystemTime::UNIX_EPOCH;
        let moved = if modified < 0 { epoch.checked_sub(shift) } else { epoch.checked_add(shift) };
        let now = epoch.checked_add(Duration::from_secs(now)).unwrap_or(epoch);
        match parse(&bytes) {
            Parsed::Incomplete => prop_assert!(bytes.len() < MAX_HEAD),
            Parsed::Bad(bad) => {
                let response = refuse(bad, now);
                check(&response, bad.is_head);
                prop_assert!(response.closes);
            }
            Parsed::Request(request, used) => {
                prop_assert!(used > 0 && used <= bytes.len());
                let response = respond(&request, document(len, moved.unwrap_or(epoch)), now);
                check(&response, request.method == Method::Head);
                if let Some(sent) = response.sent {
                    prop_assert!(sent.range.start < sent.range.end && sent.range.end <= len);
                }
            }
        }
    }
}
