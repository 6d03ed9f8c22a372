//! The model against a driver made by hand.

mod control;
mod counters;
mod hostile;
mod join;
mod latitude;
mod offload;
mod registers;
mod rig;
mod steering;
mod traffic;
mod violations;
