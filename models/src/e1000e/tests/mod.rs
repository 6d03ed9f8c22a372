//! The model, driven by raw register writes and descriptors built byte by byte.

mod control;
mod hostile;
mod interrupts;
mod packet_split;
mod qemu;
mod receive;
mod rig;
mod segmentation;
mod speed;
mod transmit;
mod violations;
mod vlan;
