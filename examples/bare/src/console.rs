//! What the outside sees: the serial port, the log, and the end.

use core::arch::asm;
use core::fmt::{self, Write};

use crate::port;

/// COM1, as QEMU's `-serial` has it; it needs no set-up there.
const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
const TRANSMIT_EMPTY: u8 = 1 << 5;
/// The port of QEMU's `isa-debug-exit`: QEMU ends with status 2 × value + 1.
const DEBUG_EXIT: u16 = 0xf4;

/// How the program ends: with what QEMU makes a status of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// All is well: QEMU's status is 33.
    Done = 16,
    /// The transfer failed: 35.
    Failed = 17,
    /// A panic: 37.
    Panicked = 18,
    /// An exception of the CPU: 39.
    Exception = 19,
}

/// The serial port.
pub(crate) struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the registers of the serial port reach no memory, and are used here alone.
            while unsafe { port::read8(LINE_STATUS) } & TRANSMIT_EMPTY == 0 {}
            // SAFETY: as above.
            unsafe { port::write8(COM1, byte) };
        }
        Ok(())
    }
}

/// Prints a line on the serial port.
macro_rules! line {
    ($($part:tt)*) => {{
        use core::fmt::Write;
        // The serial port takes everything.
        let _ = writeln!($crate::console::Serial, $($part)*);
    }};
}
pub(crate) use line;

/// Turns the machine off.
pub(crate) fn power_off(end: End) -> ! {
    // SAFETY: the port ends QEMU. On a machine without the device nothing answers there.
    unsafe { port::write32(DEBUG_EXIT, end as u32) };
    loop {
        // SAFETY: stops the CPU; interrupts are off, so for good. No operand, no effect on memory.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// What driver and HAL have to say.
struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        line!("{}: {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

/// Lets the log go to the serial port.
pub(crate) fn start_log() {
    // Fails only if there is a logger already; then that has it.
    let _ = log::set_logger(&Log);
    log::set_max_level(log::LevelFilter::Info);
}
