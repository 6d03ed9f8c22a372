//! How a model is built, and the freedoms that it takes.

use super::deviations::QemuDeviations;

/// How an [`E1000e82574`](super::E1000e82574) is built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelConfig {
    /// From which all freedoms are drawn. The same seed and the same accesses, steps and times
    /// give the same device.
    pub seed: u64,
    /// Which freedoms the device takes.
    pub latitude: Latitude,
    /// The station address in the EEPROM.
    pub mac: [u8; 6],
}

impl Default for ModelConfig {
    /// Seed 0, every freedom taken, a locally administered address.
    fn default() -> Self {
        Self {
            seed: 0,
            latitude: Latitude::default(),
            mac: [0x02, 0x00, 0x00, 0x82, 0x57, 0x4c],
        }
    }
}

/// What the specification leaves to the hardware, switch by switch. [`Latitude::default`] has all
/// of them on, as a driver must expect them; [`Latitude::none`] is the most obliging device.
/// [`Latitude::qemu`] is a device that many drivers meet first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Latitude {
    /// DD is written some time after the frame was sent or stored (82583V datasheet 7.2.4.2 says when
    /// a write-back begins, nothing says when it has arrived).
    pub late_write_back: bool,
    /// DDs are written several at once. Where WTHRESH is 0 a write-back is called immediate
    /// (82583V datasheet 7.2.4.2), which does not say how many are waiting by then.
    pub batched_write_back: bool,
    /// DD is also written to some descriptors that did not ask for it: with bursts some are
    /// written back without RS (8254x SDM, page 317).
    pub unasked_write_back: bool,
    /// TDH and RDH read as the next descriptor to be *fetched*: the head says what was loaded,
    /// not what was done, and reading it to reclaim is not reliable (8254x SDM 13.4.39).
    pub head_runs_ahead: bool,
    /// A step handles a few descriptors and may stop in the middle of a frame.
    pub partial_progress: bool,
    /// A frame of more than 64 fragments is lost, and its descriptors are marked done all the
    /// same. The datasheet names no limit; QEMU's e1000e has this one.
    pub drop_many_fragments: bool,
    /// A receive buffer is filled with rubbish as soon as its descriptor is fetched: before DD
    /// its content is nobody's but the device's.
    pub poison_receive_buffers: bool,
    /// A queue's interrupt may come before the DD that it is for. It comes again afterwards.
    pub early_interrupts: bool,
    /// A vector may fire without any cause, as a shared or a late one does.
    pub spurious_interrupts: bool,
    /// Reading ICR in MSI-X mode while a cause is enabled may leave it as it is, unless
    /// CTRL_EXT.IAME is set (QEMU's e1000e), where hardware clears it (Linux e1000e raises the
    /// queue causes again that it has read): drawn once per device. Writing ones clears always.
    pub icr_survives_read: bool,
    /// Registers that have no initial value (8254x SDM 13.4.37 and 82575EB SDM, page 41: ring bases, MTA, VFTA) hold
    /// rubbish until they are written, and keep what they hold over a reset.
    pub undefined_defaults: bool,
    /// CTRL.RST takes up to 1 ms to clear itself.
    pub slow_reset: bool,
    /// Loading the EEPROM after a reset, and reading a word of it, takes time.
    pub slow_nvm: bool,
    /// An MDI access takes up to 100 µs.
    pub slow_mdic: bool,
    /// Auto-negotiation takes up to 5 ms. (Seconds in truth: simulations have no patience.)
    pub slow_link: bool,
    /// SWSM.SMBI is found set, as the software before us left it (QEMU's e1000e too), and after
    /// a reset firmware holds the MDIO and SWSM.SWESMBI for a while.
    pub slow_semaphores: bool,
    /// After GIO master disable, or with bus mastering off, requests under way take up to 50 µs
    /// to end, during which a frame may be finished and write-backs may still arrive.
    pub late_master_disable: bool,
    /// An MSI-X message may arrive up to 0.5 ms after it was due. (QEMU's e1000e keeps at least
    /// 128 µs between two messages of a vector, whatever EITR says.)
    pub late_interrupts: bool,
    /// With IXSM ("ignore") in a receive descriptor, the other bits about checksums hold rubbish.
    pub rubbish_with_ixsm: bool,
    /// Octets that are counted between the reading of the two halves of GORC, GOTC, TOR or TOT are
    /// cleared with those before, and in no reading. Not in [`Latitude::qemu`]: nothing happens
    /// there between two registers.
    pub forgets_octets: bool,
    /// A packet that could be split is stored as it is now and then, in the buffers of a packet
    /// split descriptor one after the other. HDRSP says which was done (Linux e1000e copes with both).
    pub unsplit_packets: bool,
    /// Where it does as QEMU does and not as the datasheet says.
    pub qemu: QemuDeviations,
}

impl Latitude {
    /// No freedom at all: everything happens at once, whole and in order, by the datasheet.
    #[must_use]
    pub const fn none() -> Self {
        Self::uniform(false)
    }

    /// QEMU's own e1000e, as near as the model gets: all at once and in order, but for what is
    /// known of it. See [`QemuDeviations`].
    #[must_use]
    pub const fn qemu() -> Self {
        Self {
            drop_many_fragments: true,
            icr_survives_read: true,
            slow_link: true,
            slow_semaphores: true,
            late_interrupts: true,
            qemu: QemuDeviations::all(),
            ..Self::none()
        }
    }

    const fn uniform(on: bool) -> Self {
        Self {
            late_write_back: on,
            batched_write_back: on,
            unasked_write_back: on,
            head_runs_ahead: on,
            partial_progress: on,
            drop_many_fragments: on,
            poison_receive_buffers: on,
            early_interrupts: on,
            spurious_interrupts: on,
            icr_survives_read: on,
            undefined_defaults: on,
            slow_reset: on,
            slow_nvm: on,
            slow_mdic: on,
            slow_link: on,
            slow_semaphores: on,
            late_master_disable: on,
            late_interrupts: on,
            rubbish_with_ixsm: on,
            forgets_octets: on,
            unsplit_packets: on,
            qemu: QemuDeviations::none(),
        }
    }
}

impl Default for Latitude {
    /// All freedoms, and no deviation from the datasheet.
    fn default() -> Self {
        Self::uniform(true)
    }
}
