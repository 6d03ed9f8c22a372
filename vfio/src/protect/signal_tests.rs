//! What the handler of SIGBUS leaves to others.

use std::ffi::{c_int, c_void};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use super::test_support::{Place, Writer};
use super::*;

const ROLE: &str = "PAGEWIRE_SIGBUS";

/// This test again, in a process of its own, with a role.
fn again(name: &str, role: &str) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("protect::signal_tests::{name}")])
        .args(["--test-threads=1", "--nocapture"])
        .env(ROLE, role)
        .status()
        .unwrap()
}

/// A page of a file that has become shorter: whoever reads it gets SIGBUS.
fn cut_off() -> *const u8 {
    let page = rustix::param::page_size();
    let file = tempfile::tempfile().unwrap();
    file.set_len(page as u64).unwrap();
    let (access, flags) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::SHARED);
    // SAFETY: a new mapping.
    let mapped = unsafe { rustix::mm::mmap(std::ptr::null_mut(), page, access, flags, &file, 0) };
    file.set_len(0).unwrap();
    mapped.unwrap().cast_const().cast()
}

extern "C" fn earlier(_signal: c_int, _info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: ends the process.
    unsafe { libc::_exit(42) };
}

#[test]
fn faults_elsewhere_are_those_of_the_handler_before() {
    let name = "faults_elsewhere_are_those_of_the_handler_before";
    let role = std::env::var(ROLE);
    let Ok(role) = role else {
        assert_eq!(again(name, "handler").code(), Some(42));
        for role in ["default", "sent"] {
            let signal = again(name, role).signal();
            assert_eq!(signal, Some(libc::SIGBUS), "{role}");
        }
        return;
    };
    // SAFETY: all zeros are a valid value, the default action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    if role == "handler" {
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = earlier;
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
    }
    // SAFETY: a handler that was made for it.
    unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) };
    let protector = Protector::open(Choice::Signal).unwrap();
    let arena = protector.arena(1).unwrap();
    let buffer = arena.buffer(1).unwrap();
    drop(buffer.lend(0..1).unwrap());
    Writer::poking(Place(buffer.as_ptr().unwrap()), 1).join();
    assert_eq!(protector.counters().faults, 1);
    if role == "sent" {
        let ours = rustix::process::getpid();
        rustix::process::kill_process(ours, rustix::process::Signal::BUS).unwrap();
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
    // SAFETY: ends the process, which is what is wanted.
    unsafe { cut_off().read_volatile() };
    unreachable!("a read of what is not there has come back");
}

#[test]
fn the_number_of_the_last_error_survives_the_handler() {
    let protector = Protector::open(Choice::Signal).unwrap();
    let arena = protector.arena(1).unwrap();
    let buffer = arena.buffer(1).unwrap();
    drop(buffer.lend(0..1).unwrap());
    let place = buffer.as_ptr().unwrap();
    // SAFETY: gives the address of a number of this thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { *errno = 77 };
    // SAFETY: a byte of the buffer, of which no slice is in use.
    unsafe { place.write_volatile(1) };
    // SAFETY: as above.
    assert_eq!(unsafe { *errno }, 77);
    assert_eq!((buffer.bytes(), protector.counters().faults), (&[1][..], 1));
}

#[test]
fn many_protectors_come_and_go() {
    let keeps = Protector::open(Choice::Signal).unwrap();
    let arena = keeps.arena(1).unwrap();
    let buffer = arena.buffer(1).unwrap();
    for _ in 0..50 {
        let other = Protector::open(Choice::Signal).unwrap();
        let elsewhere = other.arena(1).unwrap().buffer(1).unwrap();
        drop(elsewhere.lend(0..1).unwrap());
        drop(other);
        drop(buffer.lend(0..1).unwrap());
        Writer::poking(Place(elsewhere.as_ptr().unwrap()), 1).join();
        Writer::poking(Place(buffer.as_ptr().unwrap()), 1).join();
    }
    assert_eq!(keeps.counters().faults, 50);
    assert!(keeps.is_alive());
}
