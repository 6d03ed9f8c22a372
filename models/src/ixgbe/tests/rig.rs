//! The [rig](crate::rig) of the 82599, and a driver made by hand.

use super::super::{Ixgbe82599, Latitude, ModelConfig, Rules};
use crate::Device;
use crate::rig::{self, IntelRig};
pub(super) use crate::rig::{
    MAC, MEMORY, fill_checksums, ip_frame, pattern, plain_sum, seed_checksum, verifies,
};

const LEN: usize = 1 << 20;
/// Rings of queue 0, as offsets into memory; those of the next queue are 0x1000 further on.
pub(super) const TX_RING: usize = 0x1000;
pub(super) const RX_RING: usize = 0x8000;
/// Where tests put payload and receive buffers.
pub(super) const PAYLOAD: usize = 0x1_0000;
pub(super) const BUFFERS: usize = 0x8_0000;
/// Descriptors in a ring.
pub(super) const ENTRIES: u32 = 64;
/// Bytes of a receive buffer.
pub(super) const BUFFER: usize = 2048;

pub(super) const EOP: u32 = 1 << 24;
pub(super) const IFCS: u32 = 1 << 25;
pub(super) const RS: u32 = 1 << 27;
pub(super) const DEXT: u32 = 1 << 29;
pub(super) const VLE: u32 = 1 << 30;
pub(super) const TSE: u32 = 1 << 31;
/// What the last descriptor of a frame has.
pub(super) const LAST: u32 = EOP | IFCS | RS;
/// POPTS.
pub(super) const IXSM: u32 = 1 << 8;
pub(super) const TXSM: u32 = 1 << 9;
/// TUCMD.
pub(super) const IPV4: u32 = 1 << 10;
pub(super) const TCP: u32 = 1 << 11;

pub(super) type Rig = rig::Rig<Ixgbe82599>;

impl IntelRig for Ixgbe82599 {
    const TX_RING: usize = TX_RING;
    const ENTRIES: u32 = ENTRIES;
    const TAIL: u32 = 0x6018;
}

impl Rig {
    pub(super) fn with(config: ModelConfig) -> Self {
        Self::of(config.seed, LEN, |wire| Ixgbe82599::new(config, wire))
    }

    /// A device as it comes from power-up.
    pub(super) fn cold(seed: u64, latitude: Latitude) -> Self {
        Self::with(ModelConfig {
            seed,
            latitude,
            rules: Rules::default(),
            mac: MAC,
            ..ModelConfig::default()
        })
    }

    /// A device with queue 0 enabled in both directions, link up, and no receive buffers.
    pub(super) fn warm(seed: u64, latitude: Latitude) -> Self {
        Self::cold(seed, latitude).warmed_up()
    }

    /// The same device, initialised as [`warm`](Self::warm) has it.
    pub(super) fn warmed_up(mut self) -> Self {
        self.initialise();
        self.start_receive(0);
        self.start_receiver();
        self.start_transmit(0, 0);
        self.write(0x0020, 0);
        self.until("link", |rig| rig.read(0x42a4) & 1 << 30 != 0);
        self.expect_clean();
        self
    }

    /// A device without latitude.
    pub(super) fn plain() -> Self {
        Self::warm(0, Latitude::none())
    }

    /// A device with all latitudes.
    pub(super) fn wild(seed: u64) -> Self {
        Self::warm(seed, Latitude::default())
    }

    /// Sets bits of a register.
    pub(super) fn set(&mut self, offset: u32, bits: u32) {
        let value = self.read(offset);
        self.write(offset, value | bits);
    }

    /// Clears bits of a register.
    pub(super) fn clear(&mut self, offset: u32, bits: u32) {
        let value = self.read(offset);
        self.write(offset, value & !bits);
    }

    pub(super) fn reset(&mut self) {
        self.write(0x0000, 1 << 26);
        self.until("reset", |rig| rig.read(0x0000) & 1 << 26 == 0);
    }

    /// Bus master, MSI-X, reset, EEPROM, tables, packet buffers.
    pub(super) fn initialise(&mut self) {
        let command = self.device.config_read(4);
        self.device.config_write(4, command | 4);
        self.device.config_write(0x70, 1 << 31);
        self.reset();
        self.until("EEPROM", |rig| rig.read(0x1_0010) & 1 << 9 != 0);
        self.until("DMA", |rig| rig.read(0x2f00) & 1 << 3 != 0);
        for (from, to) in [
            (0x5200, 0x53fc),
            (0xa600, 0xa9fc),
            (0xf100, 0xf1fc),
            (0xf200, 0xf3fc),
            (0xf400, 0xf5fc),
        ] {
            for at in (from..=to).step_by(4) {
                self.write(at, 0);
            }
        }
        for buffer in 1..8 {
            self.write(0x3c00 + 4 * buffer, 0);
        }
        self.clear(0x2f00, 0x1f << 17);
        self.set(0x2f00, 1 << 1 | 1 << 25 | 1 << 26);
        self.set(0x0018, 1 << 16);
        self.set(0x5080, 1 << 10);
        self.set(0x4900, 1 << 6);
        for buffer in 1..8 {
            self.write(0xcc00 + 4 * buffer, 0);
        }
        self.write(0x8100, 0xfff);
        self.clear(0x4900, 1 << 6);
        self.write(0x0898, 1 << 4 | 1 << 30);
    }

    /// Enables transmit queue `queue`, with `control` in TXDCTL.
    pub(super) fn start_transmit(&mut self, queue: u32, control: u32) {
        let at = 0x6000 + 0x40 * queue;
        self.ring(at, TX_RING + queue as usize * 0x1000);
        self.set(0x4a80, 1);
        self.write(at + 0x28, control | 1 << 25);
        self.until("queue", |rig| rig.read(at + 0x28) & 1 << 25 != 0);
        self.next = 0;
    }

    /// Enables receive queue `queue`, with buffers of 2 KiB.
    pub(super) fn start_receive(&mut self, queue: u32) {
        let at = 0x1000 + 0x40 * queue;
        self.ring(at, RX_RING + queue as usize * 0x1000);
        self.write(at + 0x14, 1 << 25 | 2 | 4 << 8);
        self.clear(at + 0x0c, 1 << 12);
        self.write(at + 0x28, 1 << 25);
        self.until("queue", |rig| rig.read(at + 0x28) & 1 << 25 != 0);
    }

    pub(super) fn start_receiver(&mut self) {
        self.set(0x8d00, 1 << 1);
        self.until("drained", |rig| rig.read(0x8d04) & 1 != 0);
        self.write(0x3000, 1);
        self.clear(0x8d00, 1 << 1);
    }

    /// Gives the first `count` receive buffers of `queue`.
    pub(super) fn give(&mut self, queue: u32, count: u32) {
        for index in 0..count {
            let slot = index + queue * ENTRIES;
            let buffer = MEMORY + (BUFFERS + slot as usize * BUFFER) as u64;
            let mut raw = [0; 16];
            raw[..8].copy_from_slice(&buffer.to_le_bytes());
            let at = RX_RING + queue as usize * 0x1000 + index as usize * 16;
            self.memory.bytes[at..at + 16].copy_from_slice(&raw);
        }
        self.write(0x1018 + 0x40 * queue, count);
    }

    /// The receive descriptor as the device has left it.
    pub(super) fn rx(&self, queue: u32, index: u32) -> Received {
        let at = RX_RING + queue as usize * 0x1000 + index as usize * 16;
        let raw: [u8; 16] = self.memory.bytes[at..at + 16].try_into().unwrap();
        let word = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().unwrap());
        Received {
            kind: word(0),
            hash: word(4),
            status: word(8),
            len: (word(12) & 0xffff) as usize,
            vlan: (word(12) >> 16) as u16,
        }
    }

    pub(super) fn until_received(&mut self, queue: u32, index: u32) {
        self.until("a frame", |rig| rig.rx(queue, index).status & 1 != 0);
    }

    pub(super) fn buffer(&self, queue: u32, index: u32) -> &[u8] {
        let at = BUFFERS + (queue * ENTRIES + index) as usize * BUFFER;
        &self.memory.bytes[at..at + BUFFER]
    }

    /// Posts `frame` in pieces of the given lengths (the last takes the rest), with `command` and
    /// `options` in all of them and PAYLEN as `payload`; the index of its last descriptor.
    pub(super) fn post(
        &mut self,
        frame: &[u8],
        pieces: &[usize],
        command: u32,
        options: u32,
        payload: usize,
    ) -> u32 {
        let mut rest = frame;
        let mut place = PAYLOAD;
        for len in pieces {
            let (piece, behind) = rest.split_at(*len);
            let address = self.put(place, piece);
            self.push(data(
                address,
                *len,
                command & !LAST | IFCS,
                options,
                payload,
            ));
            place += len + 0x333;
            rest = behind;
        }
        let address = self.put(place, rest);
        self.push(data(address, rest.len(), command | LAST, options, payload))
    }

    /// Posts `frame` as a whole without offloads and waits until it is done.
    pub(super) fn send(&mut self, frame: &[u8]) {
        let last = self.post(frame, &[], 0, 0, frame.len());
        self.doorbell();
        self.until_done(last);
    }
}

/// A receive descriptor after write-back.
pub(super) struct Received {
    pub(super) kind: u32,
    pub(super) hash: u32,
    pub(super) status: u32,
    pub(super) len: usize,
    pub(super) vlan: u16,
}

/// A data descriptor.
pub(super) fn data(
    address: u64,
    len: usize,
    command: u32,
    options: u32,
    payload: usize,
) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&address.to_le_bytes());
    let command = len as u32 | 3 << 20 | DEXT | command;
    raw[8..12].copy_from_slice(&command.to_le_bytes());
    let options = options | (payload as u32) << 14;
    raw[12..].copy_from_slice(&options.to_le_bytes());
    raw
}

/// A context descriptor: MACLEN, IPLEN and L4LEN; `kind` is TUCMD.
pub(super) fn context((mac, ip, l4): (u32, u32, u32), kind: u32, mss: u32, slot: u32) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[..4].copy_from_slice(&(ip | mac << 9).to_le_bytes());
    let command = kind | 2 << 20 | DEXT;
    raw[8..12].copy_from_slice(&command.to_le_bytes());
    let last = slot << 4 | l4 << 8 | mss << 16;
    raw[12..].copy_from_slice(&last.to_le_bytes());
    raw
}
