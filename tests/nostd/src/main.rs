//! A program without std, libc and start files that holds all of hal, the drivers and tcp: it opens
//! a NIC and sends. Started on Linux, where it finds no NIC, it leaves with status 0 if the
//! driver says so.
//!
//! It proves that the three link and run without std; that they drive a NIC is proved elsewhere.
#![no_std]
#![no_main]

extern crate alloc;

mod machine;
mod memory;
mod routines;

use core::arch::{asm, naked_asm};

/// The system calls this program with an aligned stack and no return address.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "call {run}", "ud2", run = sym run)
}

extern "C" fn run() -> ! {
    exit(machine::send_something())
}

/// Leaves by a system call of Linux.
fn exit(status: i32) -> ! {
    // SAFETY: exit_group(2) takes the status in rdi and does not return.
    unsafe { asm!("syscall", in("rax") 231, in("rdi") status, options(noreturn, nostack)) }
}

/// Called by nobody: panics abort.
fn unwound() -> ! {
    exit(101)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(102)
}
