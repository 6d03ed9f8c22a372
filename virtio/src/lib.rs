//! Driver for virtio-net 1.x on the Pagewire HAL (not implemented yet).
#![no_std]
