//! What the self-test is given: a device that can be opened again and again, and what is around it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use pagewire_hal::{DeviceAddress, DmaMemory, Instant, MacAddress, Platform};

use crate::Config;

/// A device under test and its surroundings.
pub trait Station {
    /// What the driver is given.
    type Platform: Platform<Memory = Self::Memory>;
    /// The memory of that platform.
    type Memory: DmaMemory + 'static;

    /// Opens the device anew. What was opened before has been stopped, or has failed, and is
    /// dropped.
    ///
    /// # Errors
    /// Why not, in words.
    fn open(&mut self) -> Result<Self::Platform, String>;

    /// How the driver is to be opened. Tests set the number of queues and descriptors themselves.
    fn config(&self) -> Config {
        Config::default()
    }

    /// The time. Before the device was opened for the first time any.
    fn now(&self) -> Instant;

    /// Lets `duration` or a little more pass; device and wire go on meanwhile.
    fn wait(&mut self, duration: Duration);

    /// The other end of the wire, if somebody is there.
    fn peer(&mut self) -> Option<&mut dyn Peer> {
        None
    }

    /// How to come by a peer, for who has none.
    fn peer_advice(&self) -> String {
        "somebody at the other end of the wire".into()
    }

    /// `len` bytes, `content` again and again, that were mapped for the device which was opened
    /// last and are not any more; or why there cannot be such.
    ///
    /// # Errors
    /// Why not, in words.
    fn stray(&mut self, len: usize, content: &[u8]) -> Result<Box<dyn Stray>, String> {
        let _ = (len, content);
        Err("nobody here can unmap memory of the device and still look at it".into())
    }

    /// Whether the run is to end.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// The other end of the wire. Frames run from the Ethernet destination address to the last byte
/// before the frame check sequence.
pub trait Peer {
    /// Its own address.
    fn mac_address(&self) -> MacAddress;

    /// How many frames can wait here, at least 1: no more are sent at once.
    fn room(&self) -> u32 {
        64
    }

    /// Puts a frame on the wire.
    ///
    /// # Errors
    /// Why not, in words.
    fn send(&mut self, frame: &[u8]) -> Result<(), String>;

    /// Takes the next frame that has arrived into `frame`, whose content is replaced; `false` if
    /// there is none.
    ///
    /// # Errors
    /// Why not, in words.
    fn receive(&mut self, frame: &mut Vec<u8>) -> Result<bool, String>;

    /// Cuts the wire or mends it, if the peer can; `false` if it cannot.
    fn set_carrier(&mut self, on: bool) -> bool {
        let _ = on;
        false
    }
}

/// Memory that the device must not reach.
///
/// # Safety
/// While the value lives nothing is mapped for the device at [`address`](Self::address) or the
/// bytes behind it, and the memory that was mapped there is used by nobody else: so the device may
/// be told to read and write there, and if it succeeds no harm is done.
pub unsafe trait Stray {
    /// Where the device used to find the first byte: a multiple of 4096.
    fn address(&self) -> DeviceAddress;

    /// Bytes.
    fn len(&self) -> usize;

    /// Whether there is no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes as they are now.
    fn bytes(&self) -> Vec<u8>;
}
