//! The model against a driver made by hand.

mod control;
mod hostile;
mod latitude;
mod offload;
mod registers;
mod rig;
mod traffic;
mod violations;
