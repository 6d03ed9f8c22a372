//! A device model behind a vfio-user socket: for QEMU and its guest, or for a driver in user space.
//!
//! One thread ([`Server::run`]) answers the client and lets the device work. It sleeps while there
//! is nothing to do: until the client says something, a frame arrives, or, as a device may be
//! waiting for a time of its own, for a moment that gets longer as long as nothing happens (10 ms
//! at most). Without a client the device stands still.
//!
//! The client is not believed: whatever it sends, it gets an error number or is hung up on. When
//! it is gone, also by SIGKILL, the device is reset and waits for the next one; a second one beside
//! it is refused.
//!
//! Memory that client and device share is read and written word by word, as another process may
//! be writing it.

mod config;
mod copy;
mod file;
mod function;
mod irqs;
mod memory;
mod server;

pub use server::{Event, Running, ServeError, Server};
