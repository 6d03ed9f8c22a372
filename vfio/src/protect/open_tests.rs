use std::fs::File;

use rustix::io::Errno;
use rustix::process::{Uid, geteuid};

use super::super::{Attempt, Choice, Mode, ProtectError, Protector, Way};

#[test]
fn a_descriptor_that_was_passed_in_gives_a_full_one() {
    if !geteuid().is_root() {
        return println!("only root may open the device file");
    }
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/userfaultfd");
    let device = device.expect("root may open it");
    // Without any privilege of its own.
    let opened = without_privilege(move || Protector::open(Choice::Device(device.into())));
    let protector = opened.unwrap();
    assert_eq!(
        (protector.mode(), protector.way()),
        (Mode::Full, Way::Passed)
    );
    let arena = protector.arena(1).unwrap();
    drop(arena.buffer(1).unwrap().lend(0..1).unwrap());
}

#[test]
fn a_descriptor_of_something_else_is_refused() {
    let other = File::open("/dev/null").unwrap();
    let refused = Protector::open(Choice::Device(other.into())).err().unwrap();
    let attempt = Attempt {
        way: Way::Passed,
        errno: Errno::NOTTY.raw_os_error(),
    };
    assert_eq!(refused, ProtectError::NoUserfault(vec![attempt]));
    assert!(refused.to_string().contains("was passed in"), "{refused}");
}

#[test]
fn without_privilege_it_is_that_of_user_mode_and_the_error_says_how_to_mend_it() {
    let (best, full) =
        without_privilege(|| (Protector::open(Choice::Best), Protector::open(Choice::Full)));
    let allowed = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd");
    if allowed.is_ok_and(|allowed| allowed.trim() == "1") {
        return assert_eq!(full.unwrap().mode(), Mode::Full);
    }
    // Somebody may have given everybody the device file.
    if full.is_ok() {
        return assert_eq!(best.unwrap().way(), Way::Device);
    }
    let best = best.unwrap();
    assert_eq!((best.mode(), best.way()), (Mode::UserOnly, Way::UserMode));
    let text = full.err().unwrap().to_string();
    for wanted in [
        "userfaultfd(2): ",
        "/dev/userfaultfd: ",
        "CAP_SYS_PTRACE",
        "vm.unprivileged_userfaultfd=1",
        "EFAULT",
    ] {
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn a_kernel_without_it_is_told_from_one_that_forbids_it() {
    let said = |errno: Errno| {
        let attempt = |way| Attempt {
            way,
            errno: errno.raw_os_error(),
        };
        ProtectError::NoUserfault(vec![attempt(Way::Call), attempt(Way::UserMode)]).to_string()
    };
    assert!(said(Errno::NOSYS).contains("CONFIG_USERFAULTFD"));
    assert!(!said(Errno::NOSYS).contains("setfacl"));
    assert!(said(Errno::PERM).contains("setfacl"));
    assert!(!said(Errno::PERM).contains("CONFIG_USERFAULTFD"));
    assert!(
        ProtectError::NoWriteProtection(0x10)
            .to_string()
            .contains("0x10")
    );
}

/// Does it on a thread that is nobody (for Linux users belong to threads).
fn without_privilege<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        if geteuid().is_root() {
            let nobody = Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        }
        what()
    });
    thread.join().unwrap()
}
