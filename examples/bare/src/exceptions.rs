//! Exceptions of the CPU: said and ended with a status of their own. Without this the machine
//! would be reset, and nobody would know why.
//!
//! Interrupts stay off. The compiler keeps values in the 128 bytes below the stack pointer (the
//! red zone), an interrupt on the same stack would overwrite them, and the prebuilt core cannot
//! be told otherwise. Exceptions have a stack of their own, and do not return anyway.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::ops::Range;

use crate::console::{End, line, power_off};

/// Memory that the CPU reads: written once, before it is told of it.
#[repr(C, align(16))]
struct Table<T>(UnsafeCell<T>);

// SAFETY: there is one CPU, and the tables are written in `catch` alone, which is called once.
unsafe impl<T> Sync for Table<T> {}

/// What `lidt` takes.
#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

const EXCEPTIONS: usize = 32;
/// Bytes between two entries in `boot.s`.
const ENTRY_STRIDE: u64 = 16;
const CODE: u64 = 8;
const TASK_STATE: u16 = 24;
/// Words of 32 bits in a task state of 64-bit mode (Intel SDM vol. 3, "Task Management"); the
/// first stack of the interrupt stack table is at the ninth.
const TASK_STATE_WORDS: usize = 26;
const FIRST_STACK: Range<usize> = 9..11;

static GATES: Table<[[u64; 2]; EXCEPTIONS]> = Table(UnsafeCell::new([[0; 2]; EXCEPTIONS]));
static TASK: Table<[u32; TASK_STATE_WORDS]> = Table(UnsafeCell::new([0; TASK_STATE_WORDS]));

unsafe extern "C" {
    static segments: Table<[u64; 5]>;
    static exception_entries: u8;
    static exception_stack_top: u8;
}

/// Lets exceptions come to [`exception`].
///
/// # Safety
/// Called once, before there is an exception.
pub(crate) unsafe fn catch() {
    let entries = (&raw const exception_entries).addr() as u64;
    let stack = (&raw const exception_stack_top).addr() as u64;
    // SAFETY: see `Table`; nobody else holds a reference.
    let task = unsafe { &mut *TASK.0.get() };
    let base = TASK.0.get().addr() as u64;
    if let Some(words) = task.get_mut(FIRST_STACK) {
        words.copy_from_slice(&[stack as u32, (stack >> 32) as u32]);
    }
    let limit = size_of_val(task) as u64 - 1;
    // SAFETY: the segments of `boot.s`, which are there.
    let descriptors = unsafe { &segments };
    // SAFETY: see `Table`; the CPU reads the words that change at `ltr` only.
    let descriptors = unsafe { &mut *descriptors.0.get() };
    // A 64-bit task state, present.
    descriptors[3] = limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
    descriptors[4] = base >> 32;
    // SAFETY: see `Table`.
    let gates = unsafe { &mut *GATES.0.get() };
    for (index, gate) in (0u64..).zip(gates.iter_mut()) {
        let entry = entries + index * ENTRY_STRIDE;
        // An interrupt gate, present, on the first stack of the table.
        let low = entry & 0xffff | CODE << 16 | 1 << 32 | 0x8e << 40;
        *gate = [low | (entry >> 16 & 0xffff) << 48, entry >> 32];
    }
    let pointer = Pointer {
        limit: (size_of_val(gates) - 1) as u16,
        base: GATES.0.get().addr() as u64,
    };
    // SAFETY: both tables are filled, and stay.
    unsafe {
        asm!("lidt [{}]", "ltr {:x}", in(reg) &raw const pointer, in(reg) TASK_STATE,
            options(nostack, preserves_flags));
    }
}

/// Called by `boot.s` with what lies on the stack (number, error code, instruction pointer, code
/// segment) and the address that a page fault was about.
#[unsafe(no_mangle)]
extern "C" fn exception(frame: &[u64; 4], address: u64) -> ! {
    let [number, code, instruction, _] = frame;
    line!("exception {number}, code {code:#x}, at {instruction:#x}; last page fault: {address:#x}");
    power_off(End::Exception)
}
