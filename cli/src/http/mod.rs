//! HTTP/1.1 (RFC 9110, RFC 9112) for a server of files: bytes in, bytes and a range of a file out.
//! It knows no connection and no clock.
//!
//! [`parse`] takes one request from the front of what has arrived, [`Root::find`] looks for what it
//! names, [`respond`] makes the response: its first bytes, which are in memory, and what part of
//! which file follows.
//!
//! What is left out, as the RFCs allow: entity tags, several ranges in one response (the whole file
//! is sent then), languages and encodings, and requests with content.

mod condition;
mod head;
mod range;
mod response;
mod root;
mod status;
mod target;

pub use head::{Bad, MAX_FIELDS, MAX_HEAD, Method, Parsed, Request, parse};
pub use response::{Response, Sent, refuse, respond};
pub use root::{Document, Found, Root};
pub use status::Status;

#[cfg(test)]
mod tests;
