//! The TAP wire, with Linux at the other end. Each test runs in a network namespace of its own,
//! so that the machine's interfaces are never touched; without the right to make one it says so
//! and is skipped, except where the variable CI is set: there that is a failure.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are test code")]

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use pagewire_hal::Instant;
use pagewire_models::Wire;
use pagewire_models::wire::Tap;

const NAME: &str = "pagewire0";
const OUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x99];

/// Runs `test` on a thread with a network namespace of its own.
fn in_a_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: changes the namespace of this thread only, and takes no pointer.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        std::fs::metadata("/dev/net/tun")?;
        test();
        Ok(())
    });
    if let Err(error) = thread.join().unwrap() {
        println!("skipped: no network namespace or no TUN device here: {error}");
        assert!(std::env::var_os("CI").is_none(), "skipped in CI: {error}");
    }
}

/// Sets address 10.0.0.1/8 and the interface up.
fn bring_up() {
    // SAFETY: takes no pointer.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) };
    assert!(socket >= 0);
    // SAFETY: an `ifreq` is integers: all zeros are a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(NAME.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_addr = libc::sockaddr {
        sa_family: libc::AF_INET as _,
        sa_data: [0, 0, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    };
    // SAFETY: the socket is open, and the request is an `ifreq`.
    let result = unsafe { libc::ioctl(socket, libc::SIOCSIFADDR as _, &request) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    request.ifr_ifru.ifru_flags = libc::IFF_UP as _;
    // SAFETY: as above.
    let result = unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &request) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    // SAFETY: the socket is ours and not used any more.
    unsafe { libc::close(socket) };
}

/// Asks who has `target`, from 10.0.0.2.
fn arp_request(target: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(OUR_MAC);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(OUR_MAC);
    frame.extend([10, 0, 0, 2]);
    frame.extend([0; 6]);
    frame.extend(target);
    frame.resize(60, 0);
    frame
}

/// Waits until there is something to receive.
fn wait(tap: &Tap) {
    let mut poll = libc::pollfd {
        fd: tap.as_fd().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one `pollfd`, of a descriptor that is open.
    let ready = unsafe { libc::poll(&mut poll, 1, 10_000) };
    assert_eq!(ready, 1, "nothing came");
}

#[test]
fn the_kernel_answers_over_the_tap() {
    in_a_namespace(|| {
        let mut tap = Tap::open(NAME).unwrap();
        bring_up();
        tap.transmit(&mut arp_request([10, 0, 0, 1]), Instant::ZERO);
        assert_eq!(tap.counters().transmitted, 1);
        let mut frame = Vec::new();
        loop {
            wait(&tap);
            // Others than the answer come too: the kernel looks for IPv6 routers.
            if tap.receive(&mut frame, Instant::ZERO) && frame[12..14] == [0x08, 0x06] {
                break;
            }
        }
        assert_eq!(frame[..6], OUR_MAC);
        assert_eq!(frame[20..22], [0, 2], "an answer");
        assert_eq!(frame[28..32], [10, 0, 0, 1]);
        assert_eq!(tap.counters().dropped + tap.counters().errors, 0);
    });
}

#[test]
fn frames_that_linux_does_not_take_are_counted() {
    in_a_namespace(|| {
        let mut tap = Tap::open(NAME).unwrap();
        tap.transmit(&mut arp_request([10, 0, 0, 1]), Instant::ZERO);
        assert_eq!(tap.counters().errors, 1, "the interface is down");
        bring_up();
        for len in [0, 1, 13] {
            let before = tap.counters();
            tap.transmit(&mut vec![0; len], Instant::ZERO);
            assert_eq!(
                tap.counters().transmitted,
                before.transmitted,
                "{len} bytes"
            );
        }
        // Longer than the MTU, than the longest MTU, than anything.
        for len in [1514, 9000, 65_535, 70_000, 10_000_000] {
            let before = tap.counters();
            tap.transmit(&mut vec![0; len], Instant::ZERO);
            let after = tap.counters();
            let sum = |c: pagewire_models::wire::TapCounters| c.transmitted + c.errors + c.dropped;
            assert_eq!(sum(after), sum(before) + 1, "{len} bytes");
        }
        // It still works.
        tap.transmit(&mut arp_request([10, 0, 0, 1]), Instant::ZERO);
        let mut frame = Vec::new();
        loop {
            wait(&tap);
            if tap.receive(&mut frame, Instant::ZERO) && frame[12..14] == [0x08, 0x06] {
                break;
            }
        }
    });
}

#[test]
fn an_interface_in_use_is_said_to_be() {
    in_a_namespace(|| {
        let _first = Tap::open(NAME).unwrap();
        let error = Tap::open(NAME).unwrap_err();
        assert!(error.to_string().contains("another program"), "{error}");
        let error = Tap::open("lo").unwrap_err();
        assert!(error.to_string().contains("no TAP interface"), "{error}");
    });
}

#[test]
fn a_name_that_is_none_is_refused() {
    for name in ["", "0123456789abcdef", "a\0b"] {
        let error = Tap::open(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}");
    }
}

#[test]
fn a_descriptor_from_elsewhere_does_not_block() {
    // A pair of datagram sockets keeps frames apart as a TAP interface does.
    let (near, far) = UnixDatagram::pair().unwrap();
    far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut tap = Tap::from_fd(OwnedFd::from(near)).unwrap();
    let mut frame = Vec::new();
    assert!(!tap.receive(&mut frame, Instant::ZERO), "nothing was sent");
    far.send(&[7; 60]).unwrap();
    assert!(tap.receive(&mut frame, Instant::ZERO));
    assert_eq!(frame, [7; 60]);
    tap.transmit(&mut vec![8; 70], Instant::ZERO);
    let mut bytes = [0; 100];
    assert_eq!(far.recv(&mut bytes).unwrap(), 70);
    // Nobody reads: full at some point, then frames are lost and counted.
    for _ in 0..10_000 {
        tap.transmit(&mut vec![9; 1000], Instant::ZERO);
    }
    let counters = tap.counters();
    assert!(counters.dropped > 0, "{counters:?}");
    assert_eq!(counters.transmitted + counters.dropped, 10_001);
    assert_eq!((counters.received, counters.errors), (1, 0));
}
