//! The model against a driver made by hand.

mod rig;
mod traffic;
