//! Registers in ordinary memory.

use std::boxed::Box;
use std::sync::Arc;
use std::vec::Vec;

use super::*;

fn registers(words: usize, len: u32) -> MappedRegisters<Arc<()>> {
    let bar: &'static mut [u32] = Box::leak((0..words as u32).collect::<Vec<_>>().into());
    // SAFETY: `len` is at most the length of the words, which are never freed.
    unsafe { MappedRegisters::new(NonNull::from(bar).cast(), len, Arc::new(())) }
}

#[test]
fn registers_read_what_was_written() {
    let registers = registers(4, 16);
    // SAFETY: no device is behind it.
    unsafe { registers.write(8, 77) };
    let clone = registers.clone();
    let found = std::thread::spawn(move || (0..4).map(|i| clone.read(i * 4)).collect::<Vec<_>>());
    assert_eq!(found.join().unwrap(), [0, 1, 77, 3]);
}

#[test]
fn outside_the_bar_all_ones_are_read_and_nothing_is_written() {
    let registers = registers(4, 14);
    for offset in [12, 13, 16, 1, 2, 7, u32::MAX, u32::MAX - 3] {
        assert_eq!(registers.read(offset), u32::MAX, "{offset:#x}");
        // SAFETY: no device is behind it.
        unsafe { registers.write(offset, 0xdead) };
    }
    assert_eq!(
        (registers.read(0), registers.read(4), registers.read(8)),
        (0, 1, 2)
    );
}

#[test]
fn narrow_registers_have_their_width_and_the_byte_order_of_pci() {
    let registers = registers(3, 9);
    // SAFETY: no device is behind it.
    unsafe { registers.write(4, 0x4433_2211) };
    assert_eq!((registers.read16(4), registers.read16(6)), (0x2211, 0x4433));
    assert_eq!(
        [4, 5, 6, 7].map(|at| registers.read8(at)),
        [0x11, 0x22, 0x33, 0x44]
    );
    // SAFETY: as above.
    unsafe { registers.write16(6, 0xbeef) };
    // SAFETY: as above.
    unsafe { registers.write8(5, 0x5a) };
    assert_eq!(registers.read(4), 0xbeef_5a11);
    for offset in [5, 8, u32::MAX, u32::MAX - 1] {
        assert_eq!(registers.read16(offset), u16::MAX, "{offset:#x}");
        // SAFETY: as above.
        unsafe { registers.write16(offset, 0xdead) };
    }
    for offset in [9, 10, u32::MAX] {
        assert_eq!(registers.read8(offset), u8::MAX, "{offset:#x}");
        // SAFETY: as above.
        unsafe { registers.write8(offset, 0xad) };
    }
    assert_eq!((registers.read(4), registers.read8(8)), (0xbeef_5a11, 2));
}

#[test]
fn a_clone_keeps_the_mapping_alive() {
    let keep = Arc::new(());
    // SAFETY: a BAR of no byte needs no memory.
    let registers = unsafe { MappedRegisters::new(NonNull::dangling(), 0, keep.clone()) };
    let clone = registers.clone();
    drop(registers);
    assert_eq!(Arc::strong_count(&keep), 2);
    assert_eq!(clone.read(0), u32::MAX);
    drop(clone);
    assert_eq!(Arc::strong_count(&keep), 1);
}
