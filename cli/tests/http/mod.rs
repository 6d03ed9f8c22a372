//! Bytes of a client, played against the HTTP part of `pagewire serve`, and what must hold for
//! any: for the fuzzer and for the corpus that it has found.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is the failure"
)]

use std::path::Path;
use std::sync::LazyLock;
use std::time::SystemTime;

use pagewire_cli::http::{self, Found, MAX_HEAD, Method, Parsed, Response, Root, Status};

/// Most requests of one input.
const REQUESTS: usize = 50;

/// A directory that is always the same: this one, with its folders.
static ROOT: LazyLock<Root> = LazyLock::new(|| {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    Root::open(&place).unwrap()
});

/// Answers all requests in `bytes` as a server does, until one ends the connection.
pub(crate) fn exercise(bytes: &[u8]) {
    let mut rest = bytes;
    let now = SystemTime::now();
    for _ in 0..REQUESTS {
        match http::parse(rest) {
            Parsed::Incomplete => {
                assert!(rest.len() < MAX_HEAD, "nobody may wait for more than that");
                return;
            }
            Parsed::Bad(bad) => {
                let response = http::refuse(bad, now);
                check(&response, bad.is_head);
                assert!(response.closes && response.sent.is_none());
                return;
            }
            Parsed::Request(request, len) => {
                let (head, behind) = rest.split_at(len);
                check_alone(head, &request);
                let response = http::respond(&request, ROOT.find(&request), now);
                check(&response, request.method == Method::Head);
                check_for_any_file(&request, now);
                assert_eq!(response.closes, !request.keep_alive);
                if response.closes {
                    return;
                }
                rest = behind;
            }
        }
    }
}

/// A request does not depend on what follows, and no part of it is one.
fn check_alone(head: &[u8], request: &http::Request) {
    let alone = Parsed::Request(Box::new(request.clone()), head.len());
    assert_eq!(http::parse(head), alone);
    for len in [head.len() / 2, head.len() - 1] {
        let part = http::parse(&head[..len]);
        assert!(
            !matches!(part, Parsed::Request(..)),
            "{len} bytes of it: {part:?}"
        );
    }
}

/// The same request for files that no directory has.
fn check_for_any_file(request: &http::Request, now: SystemTime) {
    for len in [0, 1, 5000, u64::MAX] {
        let Ok(file) = std::fs::File::open("/dev/null") else {
            return;
        };
        let found = Found::Document(http::Document {
            file,
            len,
            modified: Some(now),
            media_type: "a/b".into(),
        });
        let response = http::respond(request, found, now);
        check(&response, request.method == Method::Head);
        if let Some(sent) = response.sent {
            assert!(sent.range.start < sent.range.end && sent.range.end <= len);
        }
    }
}

/// The head is well-formed, and the content as long as it says.
fn check(response: &Response, is_head: bool) {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Response::new(&mut fields);
    let len = parsed.parse(&response.bytes).unwrap().unwrap();
    assert_eq!(parsed.code, Some(response.status.code()));
    let text = (response.bytes.len() - len) as u64;
    let file = response
        .sent
        .as_ref()
        .map_or(0, |sent| sent.range.end - sent.range.start);
    let lens: Vec<_> = parsed
        .headers
        .iter()
        .filter(|field| field.name == "Content-Length")
        .collect();
    match lens.as_slice() {
        [] => assert_eq!((response.status, text + file), (Status::NotModified, 0)),
        [_] if is_head => assert_eq!(text + file, 0),
        [said] => assert_eq!(said.value, (text + file).to_string().as_bytes()),
        _ => panic!("several lengths"),
    }
}
