//! The copy path: copying and summing in one pass, against `memcpy`, and against a copy that is summed
//! afterwards.

pub mod case;
pub mod run;
