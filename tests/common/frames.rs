//! Frames of an Ethernet header and pieces of a region, through a port.

use std::sync::Arc;

use pagewire::e1000e::Config;
use pagewire::hal::{Loan, Offload, PortError, Region, RegionId};
use pagewire_models::{Host, HostRegion};

use super::Port;

pub type Bytes = Arc<HostRegion<Vec<u8>>>;

/// Registers `len` bytes of a pattern.
pub fn region(host: &Host, port: &mut Port, len: usize) -> (Bytes, RegionId) {
    let bytes: Vec<u8> = (0..len).map(|i| (i * 31 + i / 251) as u8).collect();
    let region = host.register(bytes).unwrap();
    let id = port
        .ledger_mut()
        .register(Arc::clone(&region) as Arc<dyn Region>)
        .unwrap();
    (region, id)
}

/// Posts a frame: an Ethernet header of 14 bytes and `pieces` of the region, each a range.
pub fn post(
    port: &mut Port,
    loan: &Loan,
    pieces: &[(usize, usize)],
) -> Result<pagewire::hal::FrameId, PortError> {
    let mut buffer = port.buffer(64).expect("a buffer");
    let header = [0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 0x88, 0xb5];
    port.bytes_mut(&mut buffer)[..14].copy_from_slice(&header);
    let mut frame = port.frame(buffer, 14);
    for (start, len) in pieces {
        frame.attach(loan, *start, *len);
    }
    frame.post(Offload::NONE)
}

pub fn config(descriptors: u16) -> Config {
    let mut config = Config::default();
    config.tx_descriptors = descriptors;
    config.rx_descriptors = descriptors;
    config
}
