//! What of the `pagewire` command does no input or output of its own: here a fuzzer reaches it.

pub mod http;
