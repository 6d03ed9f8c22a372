//! The [rig](crate::rig) of the 82574, and a driver made by hand.

use super::super::{E1000e82574, Latitude, ModelConfig};
use crate::Device;
use crate::rig::{self, IntelRig};
pub(super) use crate::rig::{
    MAC, MEMORY, field, fill_checksums, ip_frame, plain_sum, pseudo_sum, seed_checksum, verifies,
};

const LEN: usize = 1 << 20;
/// Rings, as offsets into memory.
pub(super) const TX_RING: usize = 0x1000;
pub(super) const TX_RING_1: usize = 0x3000;
pub(super) const RX_RING: usize = 0x5000;
/// Where tests put payload and receive buffers.
pub(super) const PAYLOAD: usize = 0x1_0000;
pub(super) const BUFFERS: usize = 0x8_0000;
/// Descriptors in a ring.
pub(super) const ENTRIES: u32 = 32;
/// Bytes of a receive buffer.
pub(super) const BUFFER: usize = 2048;

pub(super) const EOP: u8 = 1;
pub(super) const IFCS: u8 = 2;
pub(super) const IC: u8 = 4;
pub(super) const TSE: u8 = 4;
pub(super) const VLE: u8 = 0x40;
pub(super) const RS: u8 = 8;
pub(super) const DEXT: u8 = 0x20;
pub(super) const IDE: u8 = 0x80;
/// What the last descriptor of a frame has.
pub(super) const LAST: u8 = EOP | IFCS | RS;
pub(super) const IXSM: u8 = 1;
pub(super) const TXSM: u8 = 2;

pub(super) type Rig = rig::Rig<E1000e82574>;

impl IntelRig for E1000e82574 {
    const TX_RING: usize = TX_RING;
    const ENTRIES: u32 = ENTRIES;
    const TAIL: u32 = 0x3818;
}

impl Rig {
    /// A device as it comes from power-up.
    pub(super) fn cold(seed: u64, latitude: Latitude) -> Self {
        let config = ModelConfig {
            seed,
            latitude,
            mac: MAC,
        };
        Self::of(seed, LEN, |wire| E1000e82574::new(config, wire))
    }

    /// A device with both units enabled, link up, and no receive buffers.
    pub(super) fn warm(seed: u64, latitude: Latitude) -> Self {
        let mut rig = Self::cold(seed, latitude);
        rig.initialise();
        rig.start_transmit();
        rig.start_receive(0);
        rig.until("link", |rig| rig.read(0x0008) & 2 != 0);
        rig.expect_clean();
        rig
    }

    /// A device without latitude.
    pub(super) fn plain() -> Self {
        Self::warm(0, Latitude::none())
    }

    /// A device with all latitudes.
    pub(super) fn wild(seed: u64) -> Self {
        Self::warm(seed, Latitude::default())
    }

    /// Reset, EEPROM, bus master, MSI-X.
    pub(super) fn initialise(&mut self) {
        let command = self.device.config_read(4);
        self.device.config_write(4, command | 4);
        self.device.config_write(0xa0, 1 << 31);
        self.write(0x0000, 1 << 26);
        self.until("reset", |rig| rig.read(0x0000) & 1 << 26 == 0);
        self.until("EEPROM", |rig| rig.read(0x0010) & 1 << 9 != 0);
        for entry in 0..128 {
            self.write(0x5200 + 4 * entry, 0);
        }
        let control = self.read(0x0000);
        self.write(0x0000, control | 1 << 6);
    }

    pub(super) fn prepare_transmit(&mut self) {
        self.ring(0x3800, TX_RING);
        self.ring(0x3900, TX_RING_1);
        self.write(0x3828, 1 << 24 | 1 << 22 | 1 << 16);
        self.write(0x3928, 1 << 24 | 1 << 22 | 1 << 16);
        self.next = 0;
    }

    pub(super) fn start_transmit(&mut self) {
        self.prepare_transmit();
        self.write(0x0400, 1 << 1 | 1 << 3);
    }

    /// `extra` goes into RCTL beside EN, BAM and SECRC; 2 KiB buffers.
    pub(super) fn start_receive(&mut self, extra: u32) {
        self.write(0x0100, 0);
        self.ring(0x2800, RX_RING);
        self.write(0x0100, 1 << 1 | 1 << 15 | 1 << 26 | extra);
    }

    /// Gives the first `count` receive buffers.
    pub(super) fn give(&mut self, count: u32) {
        for index in 0..count {
            self.give_one(index);
        }
        self.write(0x2818, count);
    }

    /// Fills in receive descriptor `index`, without telling the device.
    pub(super) fn give_one(&mut self, index: u32) {
        let buffer = MEMORY + (BUFFERS + index as usize * BUFFER) as u64;
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&buffer.to_le_bytes());
        let at = RX_RING + index as usize * 16;
        self.memory.bytes[at..at + 16].copy_from_slice(&raw);
    }

    /// The receive descriptor as the device has left it.
    pub(super) fn rx(&self, index: u32) -> Received {
        let at = RX_RING + index as usize * 16;
        let raw: [u8; 16] = self.memory.bytes[at..at + 16].try_into().unwrap();
        let word = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
        Received {
            raw,
            len: word(8) as usize,
            checksum: word(10),
            status: raw[12],
            errors: raw[13],
        }
    }

    pub(super) fn buffer(&self, index: u32) -> &[u8] {
        let at = BUFFERS + index as usize * BUFFER;
        &self.memory.bytes[at..at + BUFFER]
    }
}

/// A receive descriptor after write-back.
pub(super) struct Received {
    pub(super) raw: [u8; 16],
    pub(super) len: usize,
    pub(super) checksum: u16,
    pub(super) status: u8,
    pub(super) errors: u8,
}

/// A legacy transmit descriptor.
pub(super) fn legacy(address: u64, len: u16, command: u8, cso: u8, css: u8) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&address.to_le_bytes());
    raw[8..10].copy_from_slice(&len.to_le_bytes());
    raw[10] = cso;
    raw[11] = command;
    raw[13] = css;
    raw
}

/// A data descriptor.
pub(super) fn data(address: u64, len: u32, command: u8, options: u8) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&address.to_le_bytes());
    raw[8..11].copy_from_slice(&len.to_le_bytes()[..3]);
    raw[10] |= 1 << 4;
    raw[11] = command | DEXT;
    raw[13] = options;
    raw
}

/// A context descriptor; the ranges are start, offset, end.
pub(super) fn context(ip: (u8, u8, u16), tu: (u8, u8, u16), command: u8) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[0] = ip.0;
    raw[1] = ip.1;
    raw[2..4].copy_from_slice(&ip.2.to_le_bytes());
    raw[4] = tu.0;
    raw[5] = tu.1;
    raw[6..8].copy_from_slice(&tu.2.to_le_bytes());
    raw[11] = command | DEXT;
    raw
}

/// What segmentation needs of a context beside its ranges.
pub(super) fn with_segmentation(
    mut raw: [u8; 16],
    payload: usize,
    header: usize,
    mss: usize,
) -> [u8; 16] {
    let [p0, p1, p2, _] = (payload as u32).to_le_bytes();
    raw[8] = p0;
    raw[9] = p1;
    raw[10] |= p2 & 0xf;
    raw[11] |= TSE;
    raw[13] = header as u8;
    raw[14..].copy_from_slice(&(mss as u16).to_le_bytes());
    raw
}

/// A context for TCP over IPv4 without options.
pub(super) fn tcp_context() -> [u8; 16] {
    context((14, 24, 33), (34, 50, 0), 0b11)
}
