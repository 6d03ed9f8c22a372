//! Software NICs behind the Pagewire platform traits, seeded and suspicious.
#![no_std]
