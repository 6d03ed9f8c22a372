//! Driver for Intel 82599, X540 and X550 on the Pagewire HAL (not implemented yet).
#![no_std]
