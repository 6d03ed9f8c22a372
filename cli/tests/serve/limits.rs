//! What a client can hold, and for how long; and what serving takes of memory and of calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

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
            "5",
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
        let server = Server::start(site.directory.path(), &["--idle-timeout", "3"]);
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

/// A byte now and then does not make a request last longer than a client may be idle.
#[test]
fn a_client_that_says_a_byte_at_a_time_is_shown_out() {
    if !can_make_a_tap("a_client_that_says_a_byte_at_a_time_is_shown_out") {
        return;
    }
    in_a_network_of_its_own(|| {
        let site = Site::new(&[10]);
        let server = Server::start(site.directory.path(), &["--idle-timeout", "3"]);
        let mut slow = connect();
        slow.write_all(b"GET /10 HTTP/1.1\r\nX: ").unwrap();
        slow.set_nonblocking(true).unwrap();
        let answered = (0..300).any(|_| {
            let _ = slow.write(b"x");
            std::thread::sleep(Duration::from_millis(100));
            slow.peek(&mut [0; 1]).is_ok()
        });
        assert!(answered, "half a minute for a head");
        slow.set_nonblocking(false).unwrap();
        assert!(read_up_to(&mut slow, 1000).starts_with(b"HTTP/1.1 408 "));
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

const GIBI: u64 = 1 << 30;

/// A word of the pattern that a large file has: each is another.
fn word(index: u64) -> [u8; 8] {
    index.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

/// Bytes of the pattern from a place on that is a multiple of eight.
fn fill(at: u64, bytes: &mut [u8]) {
    for (index, eight) in (at / 8..).zip(bytes.chunks_mut(8)) {
        eight.copy_from_slice(&word(index)[..eight.len()]);
    }
}

/// A file of the pattern, in a directory that is removed whatever happens.
fn write_gibibyte(site: &Site, name: &str) {
    let path = site.path(name);
    let mut file = std::fs::File::create(&path).unwrap();
    let mut piece = vec![0; 1 << 20];
    for at in (0..GIBI).step_by(piece.len()) {
        fill(at, &mut piece);
        file.write_all(&piece).unwrap_or_else(|why| {
            let all = std::env::temp_dir();
            panic!(
                "this test writes 1 GiB to {}, and came to {at} bytes: {why}. Make room there, or set \
                 TMPDIR to where there is some",
                all.display()
            );
        });
    }
}

/// Compares all that a client gets with the pattern, from a place on, and says how much it was.
fn compare(mut client: impl Read, from: u64) -> u64 {
    let mut got = vec![0; 1 << 20];
    let mut should = vec![0; (1 << 20) + 16];
    let mut at = from;
    loop {
        let len = client.read(&mut got).unwrap();
        if len == 0 {
            return at - from;
        }
        let skip = (at % 8) as usize;
        fill(at - skip as u64, &mut should[..skip + len]);
        let same = got[..len] == should[skip..skip + len];
        assert!(same, "in {len} bytes from {at} on");
        at += len as u64;
    }
}

/// None if it has ended.
fn anonymous_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    line?.split_whitespace().next()?.parse().ok()
}

/// A client, whose output is compared while it runs.
fn client(words: &[&str], from: u64) -> u64 {
    let mut client = Command::new(words[0])
        .args(&words[1..])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let compared = compare(client.stdout.take().unwrap(), from);
    assert!(client.wait().unwrap().success(), "{words:?}");
    compared
}

/// A gibibyte is served, byte by byte as it is, and anonymous memory does not grow with it.
#[test]
fn a_gibibyte_is_equal_and_costs_no_memory() {
    const TEST: &str = "a_gibibyte_is_equal_and_costs_no_memory";
    const MOST: u64 = 64 << 10;
    if !can_make_a_tap(TEST) || !has("curl", TEST) || !has("wget", TEST) {
        return;
    }
    in_a_network_of_its_own(|| {
        let site = Site::new(&[]);
        write_gibibyte(&site, "big");
        let server = Server::start(site.directory.path(), &[]);
        let pid = server.pid();
        let before = anonymous_kib(pid).expect("the server runs");
        let done = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&done);
        let watcher = std::thread::spawn(move || {
            let mut most = before;
            while !stop.load(Ordering::SeqCst) {
                most = most.max(anonymous_kib(pid).unwrap_or(0));
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let big = url("big");
        let curl = ["curl", "-sS", "--noproxy", "*", "-m", "600"];
        assert_eq!(client(&[&curl[..], &[&big]].concat(), 0), GIBI);
        // From the midst, across the ends of what is mapped at a time, to the last byte or not.
        for (first, last) in [
            (GIBI / 2 - 5, GIBI / 2 + (40 << 20) + 3),
            (GIBI - 100_001, GIBI - 1),
        ] {
            let range = format!("{first}-{last}");
            let words = [&curl[..], &["-r", &range, &big]].concat();
            assert_eq!(client(&words, first), last + 1 - first, "{range}");
        }
        let wget = ["wget", "-q", "--no-proxy", "-T", "60", "-O", "-", &big];
        assert_eq!(client(&wget, 0), GIBI);
        done.store(true, Ordering::SeqCst);
        let most = watcher.join().unwrap();
        println!("anonymous memory: {before} KiB before, {most} KiB at most");
        assert!(
            most - before < MOST,
            "{before} KiB before, {most} KiB at most"
        );
        let end = server.stop_after(4);
        check_end(&end);
        assert!(end["shared_bytes"].as_u64() >= Some(2 * GIBI), "{end}");
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
