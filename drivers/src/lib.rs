//! Opens the right Pagewire driver for a PCI device.
#![no_std]
