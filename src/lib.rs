//! Pagewire.
#![no_std]
