//! Which driver is for which PCI device, and self-tests that run on any of them: **not
//! implemented yet**. Today a program opens `pagewire-e1000e` itself. This crate reserves the
//! room and its place in the dependency order.
#![no_std]
