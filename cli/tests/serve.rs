//! `pagewire serve` as clients see it: the kernel's TCP with curl, wget and bare sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests: a panic is the failure"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

mod common;
#[path = "serve/limits.rs"]
mod limits;
#[path = "common/site.rs"]
mod site;

use common::{can_make_a_tap, interfaces, refused};
use serde_json::Value;
use site::*;

const LENS: [usize; 8] = [0, 1, 1447, 1448, 1449, 65535, 65536, 65537];

fn connect() -> TcpStream {
    let stream = TcpStream::connect((SERVER, 80)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// Sends a request that ends its connection, and returns the head and the content of the response.
fn get(target: &str) -> (String, Vec<u8>) {
    let mut stream = connect();
    let text = format!("GET {target} HTTP/1.0\r\n\r\n");
    stream.write_all(text.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    let content = bytes.split_off(end);
    (String::from_utf8(bytes).unwrap(), content)
}

/// The numbers that must agree where there was room to lend all that was sent.
fn check_end(end: &Value) {
    check_counts(end);
    assert_eq!(end["copied_bytes"], 0, "{end}");
}

/// The numbers that must agree in any case.
fn check_counts(end: &Value) {
    let count = |name: &str| {
        end[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {end}"))
    };
    assert!(count("bytes") > 0, "{end}");
    let all = count("shared_bytes") + count("copied_bytes");
    assert!(all >= count("bytes"), "{end}");
}

#[test]
fn curl_and_wget_get_equal_files_from_every_nic() {
    const TEST: &str = "curl_and_wget_get_equal_files_from_every_nic";
    if !can_make_a_tap(TEST) || !has("curl", TEST) || !has("wget", TEST) {
        return;
    }
    for nic in ["model:ixgbe", "model:e1000e", "model:virtio"] {
        in_a_network_of_its_own(move || {
            let site = Site::new(&[&LENS[..], &[16 << 20]].concat());
            let server = Server::start(site.directory.path(), &["--device", nic]);
            for len in LENS.into_iter().chain([16 << 20]) {
                let name = len.to_string();
                let expected = site.bytes(&name);
                assert!(curl(&[&url(&name)]).stdout == expected, "{nic}: {len}");
                let request = server.line();
                assert_eq!(request["status"], 200);
                assert_eq!(request["delivered"], request["bytes"]);
                let output = Command::new("wget")
                    .args(["-q", "--no-proxy", "-T", "60", "-O", "-", &url(&name)])
                    .output()
                    .unwrap();
                assert!(
                    output.status.success() && output.stdout == expected,
                    "{nic}: {len}"
                );
                server.line();
            }
            check_end(&server.stop());
        });
    }
}

#[test]
fn ranges_are_equal_to_those_of_the_file() {
    const TEST: &str = "ranges_are_equal_to_those_of_the_file";
    if !can_make_a_tap(TEST) || !has("curl", TEST) {
        return;
    }
    in_a_network_of_its_own(|| {
        let len = 5 << 20;
        let site = Site::new(&[len]);
        let name = len.to_string();
        let bytes = site.bytes(&name);
        let server = Server::start(site.directory.path(), &[]);
        let mebi = 1 << 20;
        for (first, last) in [
            (0, 0),
            (1, 4096),
            (4095, 4096),
            (4096, 8191),
            (mebi - 1, mebi),
            (mebi, 2 * mebi - 1),
            (mebi + 77, 4 * mebi + 3),
            (len - 1, len - 1),
            (0, len - 1),
        ] {
            let range = format!("{first}-{last}");
            let got = curl(&["-r", &range, &url(&name)]).stdout;
            assert!(got == bytes[first..=last], "{range}");
            assert_eq!(server.line()["status"], 206);
        }
        let tail = curl(&["-r", "-70000", &url(&name)]).stdout;
        assert!(tail == bytes[len - 70000..]);
        // Where a download broke off it goes on.
        let part = site.directory.path().join("part");
        std::fs::write(&part, &bytes[..1_234_567]).unwrap();
        curl(&["-C", "-", "-o", part.to_str().unwrap(), &url(&name)]);
        assert!(std::fs::read(&part).unwrap() == bytes);
        check_end(&server.stop_after(2));
    });
}

#[test]
fn what_is_not_a_file_is_answered() {
    const TEST: &str = "what_is_not_a_file_is_answered";
    if !can_make_a_tap(TEST) || !has("curl", TEST) {
        return;
    }
    in_a_network_of_its_own(|| {
        let all = tempfile::tempdir().unwrap();
        let served = all.path().join("served");
        std::fs::create_dir_all(served.join("folder")).unwrap();
        std::fs::write(all.path().join("secret"), "secret").unwrap();
        std::fs::write(served.join("file.html"), "text").unwrap();
        std::fs::write(served.join("folder/index.html"), "index").unwrap();
        std::os::unix::fs::symlink("../secret", served.join("out")).unwrap();
        std::os::unix::fs::symlink("file.html", served.join("in")).unwrap();
        let made = Command::new("mkfifo").arg(served.join("fifo")).status();
        assert!(made.unwrap().success());
        let server = Server::start(&served, &[]);
        let file = url("file.html");
        let since = |day| format!("If-Modified-Since: {day} 00:00:00 GMT");
        for (args, expected) in [
            (&[file.as_str()][..], "200"),
            (&["-I", &file], "200"),
            (&["-H", &since("Fri, 01 Jan 2100"), &file], "304"),
            (&["-H", &since("Mon, 01 Jan 2001"), &file], "200"),
            (&[&url("none")], "404"),
            (&[&url("fifo")], "404"),
            (&["-d", "x=1", &file], "405"),
            (&["-X", "OPTIONS", &file], "405"),
            (&["-r", "4-", &file], "416"),
            (&[&url("folder")], "301"),
            (&["-L", &url("folder")], "200"),
            (&["--path-as-is", &url("../secret")], "400"),
            (&["--path-as-is", &url("%2e%2e/secret")], "400"),
            (&["--path-as-is", &url("folder/..%2f../secret")], "400"),
            (&[&url("out")], "404"),
            (&[&url("in")], "200"),
            (&["-H", &format!("X: {}", "x".repeat(9000)), &file], "431"),
        ] {
            assert_eq!(status(args), expected, "{args:?}");
        }
        let head = String::from_utf8(curl(&["-I", &file]).stdout).unwrap();
        for field in [
            "Content-Length: 4",
            "Content-Type: text/html",
            "Accept-Ranges: bytes",
        ] {
            assert!(head.contains(field), "{head}");
        }
        let allow = curl(&["-i", "-X", "DELETE", &file]).stdout;
        assert!(
            String::from_utf8(allow)
                .unwrap()
                .contains("Allow: GET, HEAD")
        );
        check_end(&server.stop());
    });
}

#[test]
fn sixty_four_downloads_at_a_time() {
    const TEST: &str = "sixty_four_downloads_at_a_time";
    if !can_make_a_tap(TEST) || !has("curl", TEST) {
        return;
    }
    in_a_network_of_its_own(|| {
        let lens: Vec<_> = (0..64).map(|index| 300_000 + 7919 * index).collect();
        let site = Site::new(&lens);
        // Not even room for all of them. Nobody waits for another one: some bytes are copied.
        let limits = ["--limit", "512k", "--total-limit", "8M"];
        let server = Server::start(site.directory.path(), &limits);
        let got = tempfile::tempdir().unwrap();
        let place = format!("{}/#1", got.path().display());
        let names: Vec<_> = lens.iter().map(usize::to_string).collect();
        let urls = url(&format!("{{{}}}", names.join(",")));
        curl(&[
            "-Z",
            "--parallel-immediate",
            "--parallel-max",
            "64",
            "-o",
            &place,
            &urls,
        ]);
        for name in &names {
            let bytes = std::fs::read(got.path().join(name)).unwrap();
            assert!(bytes == site.bytes(name), "{name}");
        }
        let end = server.stop_after(64);
        check_counts(&end);
        assert_eq!(end["requests"], 64);
        assert_eq!(end["broken"], 0);
        assert!(
            end["most_locked_bytes"].as_u64().unwrap() <= 8 << 20,
            "{end}"
        );
    });
}

/// RFC 9112 sections 9.3 and 9.3.2.
#[test]
fn a_connection_is_kept_and_takes_requests_ahead() {
    if !can_make_a_tap("a_connection_is_kept_and_takes_requests_ahead") {
        return;
    }
    in_a_network_of_its_own(|| {
        let site = Site::new(&[100_000, 7]);
        let server = Server::start(site.directory.path(), &[]);
        let mut stream = connect();
        let one = |name: &str, more: &str| format!("GET /{name} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
        let close = one("7", "Connection: close\r\n");
        let all = [one("7", ""), one("100000", ""), one("none", ""), close].concat();
        // In pieces that end anywhere.
        for part in all.as_bytes().chunks(17) {
            stream.write_all(part).unwrap();
        }
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let mut rest = bytes.as_slice();
        for (status, content) in [
            ("200", site.bytes("7")),
            ("200", site.bytes("100000")),
            ("404", b"404 Not Found\n".to_vec()),
            ("200", site.bytes("7")),
        ] {
            let end = rest
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
                .unwrap()
                + 4;
            let (head, behind) = rest.split_at(end);
            assert_eq!(&head[9..12], status.as_bytes());
            let (got, next) = behind.split_at(content.len());
            assert!(got == content);
            rest = next;
        }
        assert!(rest.is_empty());
        let end = server.stop_after(4);
        check_end(&end);
        assert_eq!(
            (&end["connections"], &end["requests"]),
            (&1.into(), &4.into())
        );
    });
}

/// What Apache's people asked for in 1997: the header and the beginning of the file in one frame.
#[test]
fn header_and_file_leave_in_one_frame() {
    if !can_make_a_tap("header_and_file_leave_in_one_frame") {
        return;
    }
    in_a_network_of_its_own(|| {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
        let site = Site::new(&[1000]);
        let server = Server::start(site.directory.path(), &[]);
        let all = rustix::net::Protocol::from_raw(
            std::num::NonZeroU32::new(
                u32::from(libc::ETH_P_ALL.cast_unsigned() as u16).to_be() >> 16,
            )
            .unwrap(),
        );
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let frames = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(all)).unwrap();
        assert!(netdevice::name_to_index(&frames, "pagewire0").unwrap() > 0);
        let (_, content) = get("/1000");
        assert_eq!(content, site.bytes("1000"));
        let mut frame = [0; 70_000];
        let mut found = 0;
        while let Ok((len, _)) =
            rustix::net::recv(&frames, &mut frame[..], rustix::net::RecvFlags::empty())
        {
            let bytes = &frame[..len];
            if bytes.windows(12).any(|part| part == b"HTTP/1.1 200") {
                assert!(bytes.ends_with(&content), "{len} bytes");
                found += 1;
            }
        }
        // More than once if it was sent again.
        assert!(found > 0);
        check_end(&server.stop_after(1));
    });
}

#[test]
fn nothing_is_left_behind() {
    if !can_make_a_tap("nothing_is_left_behind") {
        return;
    }
    in_a_network_of_its_own(|| {
        let site = Site::new(&[8 << 20]);
        let server = Server::start(site.directory.path(), &[]);
        // In the middle of a response.
        let mut stream = connect();
        let request = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", 8 << 20);
        stream.write_all(request.as_bytes()).unwrap();
        read_up_to(&mut stream, 1000);
        let end = server.stop();
        assert_eq!(end["broken"], 1, "{end}");
        // The client is told, not left alone.
        let mut rest = Vec::new();
        let told = stream.read_to_end(&mut rest);
        assert_eq!(
            told.unwrap_err().kind(),
            std::io::ErrorKind::ConnectionReset
        );
        let left = Command::new("ip")
            .args(["link", "show", "pagewire0"])
            .output()
            .unwrap();
        assert!(!left.status.success(), "{left:?}");
    });
    assert!(!interfaces().contains(&"pagewire0".to_owned()));
}

#[test]
fn bad_input_gets_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let site = directory.path().to_str().unwrap();
    let at = "10.0.0.2:80";
    refused(&[
        "serve",
        "/no/such/folder",
        "--listen",
        at,
        "--wire",
        "tap:pagewire0",
    ]);
    refused(&[
        "serve",
        "/etc/passwd",
        "--listen",
        at,
        "--wire",
        "tap:pagewire0",
    ]);
    refused(&[
        "serve",
        site,
        "--listen",
        "10.0.0.2",
        "--wire",
        "tap:pagewire0",
    ]);
    refused(&[
        "serve",
        site,
        "--listen",
        "0.0.0.0:80",
        "--wire",
        "pair:/tmp/x",
    ]);
    refused(&["serve", site, "--listen", at]);
    refused(&["serve", site, "--listen", at, "--wire", "none"]);
    refused(&["serve", site, "--listen", at, "--wire", "pcap:x"]);
    refused(&["serve", site, "--listen", at, "--device", "qtest:e1000e"]);
    refused(&["serve", site, "--listen", at, "--device", "vfio-user:/x"]);
    refused(&["serve", site, "--listen", at, "--device", "0000:ff:1f.7"]);
    refused(&[
        "serve", site, "--listen", at, "--wire", "tap:x", "--limit", "1",
    ]);
    refused(&[
        "serve",
        site,
        "--listen",
        at,
        "--wire",
        "tap:x",
        "--hold-timeout",
        "0",
    ]);
    refused(&[
        "serve",
        site,
        "--listen",
        at,
        "--wire",
        "tap:x",
        "--prefix-len",
        "33",
    ]);
}
