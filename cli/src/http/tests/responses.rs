//! What is said of a file.

use super::*;

fn range_of(response: &Response) -> Option<(u64, u64)> {
    response
        .sent
        .as_ref()
        .map(|sent| (sent.range.start, sent.range.end))
}

#[test]
fn rfc_9110_15_3_1_the_whole_file() {
    let response = answer(&get(""));
    assert_eq!(
        (response.status, range_of(&response)),
        (Status::Ok, Some((0, 100)))
    );
    for (name, value) in [
        ("Content-Length", "100"),
        ("Content-Type", "text/plain"),
        ("Accept-Ranges", "bytes"),
        ("Date", NOW_TEXT),
        ("Last-Modified", "Sat, 05 Nov 1994 08:49:37 GMT"),
    ] {
        assert_eq!(field(&response, name), Some(value));
    }
    assert!(field(&response, "Server").unwrap().starts_with("pagewire/"));
    assert!(!response.closes);
    // A file without a byte has nothing to send.
    let empty = respond(&get(""), document(0, at(0)), at(NOW));
    check(&empty, false);
    assert_eq!((empty.status, range_of(&empty)), (Status::Ok, None));
}

#[test]
fn rfc_9110_9_3_2_head_says_what_get_would() {
    let head = request("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let (said, got) = (answer(&head), answer(&get("")));
    assert_eq!(said.bytes, got.bytes);
    assert_eq!(range_of(&said), None);
    // What is no file neither.
    let said = respond(&head, Found::Nothing, at(NOW));
    let got = respond(&get(""), Found::Nothing, at(NOW));
    assert_eq!(
        [said.bytes, b"404 Not Found\n".to_vec()].concat(),
        got.bytes
    );
    let bad = request_refused("HEAD / HTTP/1.1\r\n\r\n");
    assert!(bad.bytes.ends_with(b"\r\n\r\n"));
}

fn request_refused(text: &str) -> Response {
    let Parsed::Bad(bad) = parse(text.as_bytes()) else {
        panic!("{text:?}")
    };
    let response = refuse(bad, at(NOW));
    check(&response, bad.is_head);
    response
}

#[test]
fn rfc_9110_15_5_6_other_methods() {
    for method in [
        "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "get", "X",
    ] {
        let response = answer(&request(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")));
        assert_eq!(response.status, Status::MethodNotAllowed, "{method}");
        assert_eq!(field(&response, "Allow"), Some("GET, HEAD"));
    }
    for text in [
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(status_of(text), Some(Status::MethodNotAllowed), "{text}");
    }
    assert_eq!(
        status_of("GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        Some(Status::BadRequest)
    );
}

#[test]
fn rfc_9110_15_3_7_a_part_of_the_file() {
    for (range, expected, said) in [
        ("0-9", (0, 10), "bytes 0-9/100"),
        ("90-", (90, 100), "bytes 90-99/100"),
        ("-1", (99, 100), "bytes 99-99/100"),
        ("50-1000", (50, 100), "bytes 50-99/100"),
    ] {
        let response = answer(&get(&format!("Range: bytes={range}\r\n")));
        assert_eq!(response.status, Status::PartialContent, "{range}");
        assert_eq!(range_of(&response), Some(expected), "{range}");
        assert_eq!(field(&response, "Content-Range"), Some(said));
    }
    // Several ranges, several fields, and HEAD: the whole file (section 14.2).
    for fields in [
        "Range: bytes=0-1,3-4\r\n",
        "Range: bytes=0-1\r\nRange: bytes=3-4\r\n",
    ] {
        assert_eq!(range_of(&answer(&get(fields))), Some((0, 100)), "{fields}");
    }
    let head = request("HEAD / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n");
    assert_eq!(answer(&head).status, Status::Ok);
}

#[test]
fn rfc_9110_15_5_17_no_such_part() {
    for range in ["100-", "100-200", "-0"] {
        let response = answer(&get(&format!("Range: bytes={range}\r\n")));
        assert_eq!(response.status, Status::RangeNotSatisfiable, "{range}");
        assert_eq!(field(&response, "Content-Range"), Some("bytes */100"));
        assert_eq!(range_of(&response), None);
    }
}

/// The status for a file that was changed at [`NOW`], a day later.
fn status_with(fields: &str) -> Status {
    let request = get(fields);
    let response = respond(&request, document(100, at(NOW)), at(NOW + 86400));
    check(&response, false);
    response.status
}

#[test]
fn rfc_9110_13_1_3_if_modified_since() {
    let status = |date: &str| status_with(&format!("If-Modified-Since: {date}\r\n"));
    assert_eq!(status(BEFORE_TEXT), Status::Ok);
    assert_eq!(status(NOW_TEXT), Status::NotModified);
    assert_eq!(status(AFTER_TEXT), Status::NotModified);
    // The obsolete forms of section 5.6.7.
    assert_eq!(
        status("Sunday, 06-Nov-94 08:49:37 GMT"),
        Status::NotModified
    );
    assert_eq!(status("Sun Nov  6 08:49:37 1994"), Status::NotModified);
    for ignored in ["", "x", "784111777", &format!("{NOW_TEXT}, {NOW_TEXT}")] {
        assert_eq!(status(ignored), Status::Ok, "{ignored}");
    }
    let request = get(&format!("If-Modified-Since: {NOW_TEXT}\r\n"));
    let response = respond(&request, document(100, at(NOW)), at(NOW));
    assert_eq!(field(&response, "Last-Modified"), Some(NOW_TEXT));
    assert_eq!(field(&response, "Content-Length"), None);
    assert_eq!(range_of(&response), None);
    // A part of a second does not make a file newer than its own date says.
    let changed = at(NOW) + Duration::from_millis(900);
    let response = respond(&request, document(100, changed), at(NOW + 9));
    assert_eq!(response.status, Status::NotModified);
}

#[test]
fn rfc_9110_13_2_2_the_order_of_conditions() {
    for (fields, expected) in [
        ("If-Match: *\r\n", Status::Ok),
        ("If-Match: \"a\"\r\n", Status::PreconditionFailed),
        ("If-None-Match: *\r\n", Status::NotModified),
        ("If-None-Match: \"a\"\r\n", Status::Ok),
        (
            &format!("If-Unmodified-Since: {BEFORE_TEXT}\r\n"),
            Status::PreconditionFailed,
        ),
        (&format!("If-Unmodified-Since: {NOW_TEXT}\r\n"), Status::Ok),
        ("If-Unmodified-Since: x\r\n", Status::Ok),
        // Tags go before dates.
        (
            &format!("If-Match: *\r\nIf-Unmodified-Since: {BEFORE_TEXT}\r\n"),
            Status::Ok,
        ),
        (
            &format!("If-None-Match: \"a\"\r\nIf-Modified-Since: {NOW_TEXT}\r\n"),
            Status::Ok,
        ),
        // What must hold goes before what is known, and a range comes last.
        (
            "If-Match: \"a\"\r\nIf-None-Match: *\r\n",
            Status::PreconditionFailed,
        ),
        (
            "If-None-Match: *\r\nRange: bytes=500-\r\n",
            Status::NotModified,
        ),
    ] {
        assert_eq!(status_with(fields), expected, "{fields}");
    }
}

#[test]
fn rfc_9110_13_1_5_if_range() {
    let status = |field: &str| status_with(&format!("Range: bytes=0-9\r\nIf-Range: {field}\r\n"));
    assert_eq!(status(NOW_TEXT), Status::PartialContent);
    for other in [BEFORE_TEXT, AFTER_TEXT, "\"tag\"", "W/\"tag\"", "x", ""] {
        assert_eq!(status(other), Status::Ok, "{other}");
    }
    assert_eq!(
        status_with(&format!("If-Range: {NOW_TEXT}\r\n")),
        Status::Ok,
        "no range"
    );
    // In the second of the change its date is no strong validator.
    let fields = format!("Range: bytes=0-9\r\nIf-Range: {NOW_TEXT}\r\n");
    let response = respond(&get(&fields), document(100, at(NOW)), at(NOW));
    assert_eq!(response.status, Status::Ok);
    // What does not apply is not out of range either.
    let fields = format!("Range: bytes=500-\r\nIf-Range: {BEFORE_TEXT}\r\n");
    assert_eq!(status_with(&fields), Status::Ok);
}

#[test]
fn rfc_9110_8_8_2_1_no_date_is_later_than_now() {
    let said = |modified, now| {
        let response = respond(&get(""), document(1, modified), now);
        check(&response, false);
        field(&response, "Last-Modified").map(str::to_owned)
    };
    assert_eq!(said(at(NOW + 1), at(NOW)).as_deref(), Some(NOW_TEXT));
    assert_eq!(
        said(at(0) - Duration::from_secs(1), at(NOW)),
        None,
        "before 1970"
    );
    assert_eq!(said(at(253_402_300_800), at(NOW)), None, "the year 10000");
    // A clock that is not set yet: no date before its own time.
    assert_eq!(
        said(at(NOW), at(0) - Duration::from_secs(1)).as_deref(),
        Some("Thu, 01 Jan 1970 00:00:00 GMT")
    );
}
