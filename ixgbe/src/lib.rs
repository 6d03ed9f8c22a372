//! Intel 82599, X540 and X550: **not implemented yet**. This crate reserves the room and its place in the dependency
//! order; it contains no code. The README's table says what works today.
#![no_std]
