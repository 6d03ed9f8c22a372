//! What the models of Intel's NICs have in common: configuration space and the MSI-X table, the
//! parser of received packets, TCP segmentation, the EEPROM, bus mastering.

pub(crate) mod engine;
pub(crate) mod nvm;
pub(crate) mod packet;
pub(crate) mod pci;
pub(crate) mod segment;
