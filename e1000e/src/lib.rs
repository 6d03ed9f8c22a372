//! Driver for the Intel 82574L on the Pagewire HAL: gather, checksum offload, MSI-X.
#![no_std]
