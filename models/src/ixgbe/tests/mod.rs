//! What the model does, and what it reports.

mod control;
mod hostile;
mod interrupts;
mod module;
mod receive;
mod rig;
mod transmit;
mod violations;
mod vlan;
