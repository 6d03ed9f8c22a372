//! Configuration space as a function should have it, and as one that means no good.

use core::cell::RefCell;
use core::time::Duration;
use std::boxed::Box;
use std::vec::Vec;

use super::*;
use crate::test_support::{HeapMemory, World};
use crate::{DomainId, Instant, MappedRegisters, PlatformError};

/// 256 bytes of configuration space, and nothing else.
struct Config {
    words: RefCell<[u32; 64]>,
    world: World,
}

// SAFETY: it maps and allocates nothing, and has no slots.
unsafe impl Platform for Config {
    type Registers = MappedRegisters<()>;
    type Memory = HeapMemory;
    type Slots = Box<[u64]>;

    fn read_config(&self, offset: u16) -> u32 {
        let word = usize::from(offset / 4);
        self.words.borrow().get(word).copied().unwrap_or(u32::MAX)
    }
    unsafe fn write_config(&mut self, offset: u16, value: u32) {
        self.words.borrow_mut()[usize::from(offset / 4)] = value;
    }
    fn map_bar(&mut self, index: u8) -> Result<MappedRegisters<()>, PlatformError> {
        Err(PlatformError::NoBar(index))
    }
    fn allocate(&mut self, _: usize, _: usize) -> Result<HeapMemory, PlatformError> {
        Err(PlatformError::OutOfMemory)
    }
    fn slots(&mut self, _: usize) -> Result<Box<[u64]>, PlatformError> {
        Err(PlatformError::OutOfMemory)
    }
    fn domain(&self) -> DomainId {
        self.world.domain
    }
    fn enable_interrupts(&mut self, _: u16) -> Result<u16, PlatformError> {
        Err(PlatformError::NoInterrupts)
    }
    fn take_interrupt(&mut self, _: u16) -> bool {
        false
    }
    fn now(&self) -> Instant {
        Instant::ZERO
    }
    fn wait(&self, _: Duration) {}
}

fn config(words: &[(usize, u32)]) -> Config {
    let mut all = [0; 64];
    for (offset, word) in words {
        all[offset / 4] = *word;
    }
    Config {
        words: RefCell::new(all),
        world: World::new(),
    }
}

const HAS_LIST: (usize, u32) = (0x04, 1 << 20);

#[test]
fn capabilities_come_in_the_order_of_their_list() {
    let function = config(&[
        (0, 0x10d3_8086),
        HAS_LIST,
        (0x34, 0xffff_ff53),
        (0x50, 0x1234_4009),
        (0x40, 0x0000_6011),
        (0x60, 0x0002_0010),
    ]);
    assert_eq!(identity(&function), (0x8086, 0x10d3));
    let found: Vec<_> = capabilities(&function).collect();
    assert_eq!(found, [(0x09, 0x50), (0x11, 0x40), (0x10, 0x60)]);
    assert_eq!(find_pcie(&function), Some(0x60));
    // The status bit says that there is no list.
    let without = config(&[(0x34, 0x50), (0x50, 0x10)]);
    assert_eq!(capabilities(&without).count(), 0);
}

#[test]
fn a_list_that_is_a_ring_ends_and_a_pointer_into_the_header_is_its_end() {
    let ring = config(&[HAS_LIST, (0x34, 0x40), (0x40, 0x4009)]);
    assert_eq!(capabilities(&ring).count(), 48);
    assert_eq!(find_pcie(&ring), None);
    let header = config(&[HAS_LIST, (0x34, 0x40), (0x40, 0x3c09)]);
    assert_eq!(capabilities(&header).count(), 1);
    // A function that is gone.
    let mut gone = config(&[]);
    *gone.words.get_mut() = [u32::MAX; 64];
    assert!(capabilities(&gone).count() <= 48);
    assert_eq!(find_pcie(&gone), None);
    assert!(!is_bus_mastering_off(&gone));
    assert!(transactions_pending(&gone, Some(0x60)));
}

#[test]
fn the_command_register_changes_where_it_must_and_its_status_bits_are_not_cleared() {
    let mut function = config(&[(0x04, 0xffff_0400)]);
    enable_memory(&mut function);
    assert_eq!(function.read_config(0x04), 0x0402);
    // SAFETY: there is no device.
    unsafe { start_bus_mastering(&mut function) };
    assert_eq!(function.read_config(0x04), 0x0406);
    assert!(!is_bus_mastering_off(&function));
    stop_bus_mastering(&mut function);
    assert_eq!(function.read_config(0x04), 0x0402);
    assert!(is_bus_mastering_off(&function));
}

#[test]
fn pcie_status_and_power_states() {
    let mut function = config(&[
        HAS_LIST,
        (0x34, 0x60),
        (0x60, 0x10),
        (0x68, 1 << 21),
        (0x70, 0x43),
    ]);
    let pcie = find_pcie(&function);
    assert!(transactions_pending(&function, pcie));
    assert!(!transactions_pending(&function, None));
    disable_aspm(&mut function, pcie);
    assert_eq!(function.read_config(0x70), 0x40);
}
