//! Pagewire on Linux VFIO (not implemented yet).
#![no_std]
