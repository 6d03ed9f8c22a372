//! The calls that people know, on a [`Stack`](pagewire_tcp::Stack) of Pagewire, on Linux: `write`,
//! `writev`, `sendfile`, and a head, a range of a file and a tail in one call.
//!
//! The stack borrows ranges of regions, and no more than it has room for. An [`Outbox`] beside it
//! takes what a program has to send, keeps the place, and says when it is over:
//!
//! | what is sent | where its bytes are when the device reads them |
//! |---|---|
//! | [`Message::slice`]: memory that is registered | where they are: lent, or copied as its options say |
//! | [`Message::text`]: a text of the moment | copied once, to memory that the device reaches |
//! | [`Message::file`]: a range of a file | in the system's cache: mapped in windows and lent, never read |
//!
//! A file is sent as it is at the moment ([`LiveFile`](pagewire_vfio::LiveFile)). Windows are locked in
//! memory while they are mapped, which [`Limits`] bound. What is beyond them, or cannot be mapped, is
//! read into a buffer, a little at a time, so that no connection waits for what another one holds; memory
//! that cannot be lent for the moment is copied likewise. [`Done::copied`] and [`Counters::copied`] tell how
//! much.
//!
//! That a message is over, each byte of it acknowledged and read by the device for the last time, a
//! program learns as it likes ([`Notice`]): it asks, it is called back, or a file descriptor of its
//! event loop becomes readable.
//!
//! ```
//! use std::fs::File;
//!
//! use pagewire_hal::{DmaMemory, Instant, QueueError, TxQueue};
//! use pagewire_outbox::{Message, Outbox};
//! use pagewire_tcp::{ConnectionId, Stack};
//!
//! /// A response of HTTP: its head and the beginning of the file leave in one frame.
//! fn respond<Q: TxQueue, M: DmaMemory>(
//!     outbox: &mut Outbox<M>,
//!     stack: &mut Stack<Q, M>,
//!     now: Instant,
//!     id: ConnectionId,
//!     file: File,
//!     len: u64,
//! ) -> Result<Option<Instant>, QueueError> {
//!     let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
//!     outbox.send(id, Message::new().text(head).file(file, 0..len).tag(1));
//!     // In each round of the program's loop:
//!     outbox.poll(stack, now);
//!     let timer = stack.poll(now)?;
//!     outbox.poll(stack, now);
//!     while let Some(done) = outbox.done(id) {
//!         println!("{} of {} bytes arrived", done.delivered, done.len);
//!     }
//!     Ok(timer)
//! }
//! ```
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod calls;
mod completions;
mod files;
mod handing;
mod line;
mod message;
mod outbox;

pub use completions::{Completions, Done, Notice, OutboxError};
pub use files::{BUFFER, Counters, Limits, MapFile, NotMapped};
pub use message::Message;
pub use outbox::Outbox;
