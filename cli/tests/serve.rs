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

/// The numbers that must agree in any case.
fn check_end(end: &Value) {
    let count = |name: &str| {
        end[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {end}"))
    };
    assert!(count("bytes") > 0, "{end}");
    assert!(count("shared_bytes") >= count("bytes"), "{end}");
    assert_eq!(count("copied_bytes"), 0, "{end}");
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
        // Not even room for all of them: they wait for one another.
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
        check_end(&end);
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
        assert_eq!(found, 1);
        check_end(&server.stop_after(1));
    });
}

/// Whoever ends a connection first waits for late segments, here the server: as if it were there no
/// more.
#[test]
fn connections_that_are_over_keep_nobody_out() {
    if !can_make_a_tap("connections_that_are_over_keep_nobody_out") {
        return;
    }
    in_a_network_of_its_own(|| {
        let site = Site::new(&[1000]);
        let server = Server::start(site.directory.path(), &["--connections", "2"]);
        for _ in 0..20 {
            assert_eq!(get("/1000").1, site.bytes("1000"));
        }
        let end = server.stop_after(20);
        check_end(&end);
        assert_eq!(
            (&end["connections"], &end["broken"]),
            (&20.into(), &0.into())
        );
    });
}

#[test]
fn who_does_not_read_holds_pages_no_longer_than_he_may() {
    if !can_make_a_tap("who_does_not_read_holds_pages_no_longer_than_he_may") {
        return;
    }
    in_a_network_of_its_own(|| {
        let site = Site::new(&[32 << 20, 50_000]);
        let more = [
            "--limit",
            "1M",
            "--total-limit",
            "2M",
            "--hold-timeout",
            "1",
        ];
        let server = Server::start(site.directory.path(), &more);
        let big = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", 32 << 20);
        // One never reads, one reads a little now and then: together they have all there is.
        let mut idle = connect();
        let mut slow = connect();
        for stream in [&mut idle, &mut slow] {
            stream.write_all(big.as_bytes()).unwrap();
        }
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 100];
            while slow.read(&mut bytes).is_ok_and(|count| count > 0) {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        // Another one gets what he wants all the same, in the end.
        let (head, content) = get("/50000");
        assert!(head.starts_with("HTTP/1.1 200") && content == site.bytes("50000"));
        let mut broken = 0;
        while broken < 2 {
            let request = server.line();
            let lost = request["delivered"].as_u64() < request["bytes"].as_u64();
            broken += u64::from(lost);
        }
        reader.join().unwrap();
        let end = server.stop();
        assert_eq!(end["broken"], 2, "{end}");
        assert!(
            end["most_locked_bytes"].as_u64().unwrap() <= 2 << 20,
            "{end}"
        );
    });
}

#[test]
fn a_client_that_says_nothing_is_shown_out() {
    if !can_make_a_tap("a_client_that_says_nothing_is_shown_out") {
        return;
    }
    in_a_network_of_its_own(|| {
        let site = Site::new(&[10]);
        let server = Server::start(site.directory.path(), &["--idle-timeout", "0.3"]);
        let mut silent = connect();
        assert!(read_up_to(&mut silent, 1000).is_empty());
        let mut half = connect();
        half.write_all(b"GET /10 HTT").unwrap();
        let said = read_up_to(&mut half, 1000);
        assert!(
            said.starts_with(b"HTTP/1.1 408 "),
            "{}",
            String::from_utf8_lossy(&said)
        );
        // Who ends his side after his request gets his answer.
        let mut short = connect();
        short
            .write_all(b"GET /10 HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        short.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(read_up_to(&mut short, 1000).ends_with(&site.bytes("10")));
        // What is no HTTP is told so, and what follows it does not take the answer away.
        let mut other = connect();
        other.write_all(&[0x16; 20_000]).unwrap();
        assert!(read_up_to(&mut other, 1000).starts_with(b"HTTP/1.1 400 "));
        check_end(&server.stop());
    });
}

/// Policy "live file": who changes a file while it is sent changes what is sent; nothing crashes.
#[test]
fn a_file_that_becomes_shorter_while_it_is_sent() {
    if !can_make_a_tap("a_file_that_becomes_shorter_while_it_is_sent") {
        return;
    }
    in_a_network_of_its_own(|| {
        let len = 16 << 20;
        let site = Site::new(&[len, 10]);
        let name = len.to_string();
        let server = Server::start(site.directory.path(), &[]);
        let mut stream = connect();
        let request = format!("GET /{name} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let first = read_up_to(&mut stream, 1000);
        assert!(first.starts_with(b"HTTP/1.1 200 "));
        let file = std::fs::File::options()
            .write(true)
            .open(site.path(&name))
            .unwrap();
        file.set_len(5000).unwrap();
        // As long as was said: of what is gone there are zeros.
        let rest = read_up_to(&mut stream, u64::MAX);
        let head = first
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap()
            + 4;
        assert_eq!(first.len() - head + rest.len(), len);
        assert!(rest.ends_with(&[0; 1000]));
        assert_eq!(get("/10").1, site.bytes("10"));
        check_end(&server.stop_after(2));
    });
}

fn anonymous_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.unwrap().parse().unwrap()
}

/// A gibibyte is served, and anonymous memory does not grow with it.
#[test]
fn a_gibibyte_costs_no_memory() {
    const TEST: &str = "a_gibibyte_costs_no_memory";
    const MOST: u64 = 64 << 10;
    if !can_make_a_tap(TEST) || !has("curl", TEST) {
        return;
    }
    in_a_network_of_its_own(|| {
        let site = Site::new(&[]);
        let file = std::fs::File::create(site.path("big")).unwrap();
        file.set_len(1 << 30).unwrap();
        let server = Server::start(site.directory.path(), &[]);
        let before = anonymous_kib(server.pid());
        let mut client = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "-m", "600", "-o", "/dev/null"])
            .args(["-w", "%{size_download}", &url("big")])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut most = before;
        while client.try_wait().unwrap().is_none() {
            most = most.max(anonymous_kib(server.pid()));
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, (1u64 << 30).to_string().into_bytes());
        println!("anonymous memory: {before} KiB before, {most} KiB at most");
        assert!(
            most - before < MOST,
            "{before} KiB before, {most} KiB at most"
        );
        let end = server.stop_after(1);
        check_end(&end);
        assert!(end["shared_bytes"].as_u64() >= Some(1 << 30), "{end}");
    });
}

/// The system's own word for it: the file is mapped, and nobody reads it.
#[test]
fn no_call_reads_a_file() {
    const TEST: &str = "no_call_reads_a_file";
    if !can_make_a_tap(TEST) || !has("curl", TEST) || !has("strace", TEST) {
        return;
    }
    in_a_network_of_its_own(|| {
        let len = 4 << 20;
        let site = Site::new(&[len]);
        let name = len.to_string();
        let place = tempfile::tempdir().unwrap();
        let trace = place.path().join("trace");
        let calls = "trace=read,readv,pread64,preadv,preadv2,sendfile,splice,copy_file_range,mmap";
        let strace = [
            "strace",
            "-f",
            "-y",
            "-e",
            calls,
            "-o",
            trace.to_str().unwrap(),
        ];
        let server = Server::start_under(&strace, site.directory.path(), &[]);
        assert!(curl(&[&url(&name)]).stdout == site.bytes(&name));
        assert_eq!(server.line()["event"], "request");
        let children = format!("/proc/{0}/task/{0}/children", server.pid());
        let child = std::fs::read_to_string(children).unwrap();
        interrupt(child.split_whitespace().next().unwrap().parse().unwrap());
        let mut last = server.line();
        while last["event"] != "end" {
            last = server.line();
        }
        check_end(&last);
        let trace = std::fs::read_to_string(trace).unwrap();
        let file = site.path(&name).display().to_string();
        let of_file: Vec<_> = trace.lines().filter(|line| line.contains(&file)).collect();
        let maps = of_file.iter().filter(|line| line.contains("mmap(")).count();
        assert!(maps >= 4, "{of_file:#?}");
        assert_eq!(maps, of_file.len(), "{of_file:#?}");
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
