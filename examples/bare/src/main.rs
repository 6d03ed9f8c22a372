//! Pagewire without an operating system: boots in QEMU, drives the NIC that PCI shows, sends a
//! file that is linked into the image over TCP, says how, and powers off. `run.sh` does it all;
//! the README says what is where.
#![no_std]
#![no_main]

extern crate alloc;

mod clock;
mod console;
mod content;
mod exceptions;
mod file;
mod heap;
mod pci;
mod platform;
mod port;
#[path = "../../../tests/nostd/src/routines.rs"]
mod routines;
mod send;
mod start_info;
mod table;

use alloc::format;
use alloc::string::String;
use core::arch::global_asm;
use core::fmt::Write;
use core::net::{Ipv4Addr, SocketAddrV4};

use pagewire_drivers::{AnyNic, Config, KnownIds, known};
use pagewire_hal::DomainId;
use sha2::{Digest, Sha256};

use clock::Clock;
use console::{End, line, power_off};
use file::File;
use pci::Function;
use platform::Pc;
use send::{Failure, Report, Sender};
use start_info::Boot;

global_asm!(include_str!("boot.s"), options(att_syntax));

unsafe extern "C" {
    /// The first byte behind the image.
    static image_end: u8;
}

/// The host, as QEMU's user-mode network shows it to the guest.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// `boot.s` calls this, once, in 64-bit mode, with the address of the start info.
#[unsafe(no_mangle)]
extern "C" fn start(info: u64) -> ! {
    // SAFETY: this is the first and only call.
    unsafe { exceptions::catch() };
    console::start_log();
    let Some(boot) = Boot::read(info, (&raw const image_end).addr() as u64) else {
        line!("failed: the loader has no start info, or no RAM behind the image");
        power_off(End::Failed);
    };
    // SAFETY: the first and only call; RAM that the loader calls free, behind all of the image,
    // and nothing of the loader's is looked at any more.
    unsafe { heap::start(boot.ram.clone()) };
    match run(&boot) {
        Ok((report, digest)) => {
            table::print(&report, &digest);
            let equal = report.answer == format!("equal {digest}");
            let all_back = report.pages.pinned_pages == 0;
            power_off(if equal && all_back {
                End::Done
            } else {
                End::Failed
            });
        }
        Err(error) => {
            line!("failed: {error}");
            power_off(End::Failed)
        }
    }
}

fn run(boot: &Boot) -> Result<(Report, String), Failure> {
    let clock = Clock::new();
    let port: u16 = boot.option("port").ok_or("no port=… given")?.parse()?;
    let mut config = Config::default();
    if let Some(bound) = boot.option("max_fragments") {
        config.max_fragments = Some(bound.parse()?);
    }
    // Without an IOMMU, all devices share physical memory.
    let domain = DomainId::PHYSICAL;
    // SAFETY: the first and only call, for the domain of physical memory.
    let file = unsafe { file::map(domain) }.ok_or("the file cannot be mapped")?;
    let mut digest = String::new();
    for byte in Sha256::digest(file.bytes()) {
        write!(digest, "{byte:02x}")?;
    }
    if let Some(fault) = boot.option("provoke") {
        provoke(fault, &file, &mut digest);
    }
    let tested = |vendor, device| known(vendor, device).is_some_and(|it| it.tested_on.is_some());
    // SAFETY: the first and only call.
    let function = unsafe { Function::find(tested) };
    let function = function.ok_or_else(|| format!("there is no NIC; known are {KnownIds}"))?;
    let nic = AnyNic::open(Pc::new(function, domain, clock), &config)?;
    let remote = SocketAddrV4::new(HOST, port);
    let report = Sender::new(clock, nic)?.run(file, &digest, remote)?;
    Ok((report, digest))
}

/// Does something wrong on purpose, so that `run.sh --check` can see what comes of it.
fn provoke(fault: &str, file: &File, digest: &mut String) {
    match fault {
        "panic" => panic!("as was asked for"),
        // SAFETY: the page is mapped read-only, so nothing is written: the CPU raises an exception,
        // which ends the program. If it did not, the digest would show it.
        "write" => unsafe { file.bytes().as_ptr().cast_mut().write_volatile(0) },
        _ => *digest = "0".repeat(digest.len()),
    }
}

/// Called by nobody: panics abort.
fn unwound() -> ! {
    power_off(End::Panicked)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    line!("{info}");
    power_off(End::Panicked)
}
