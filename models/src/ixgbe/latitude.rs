//! How a model is built, the freedoms that it takes, and the rules that it insists on.

use super::module::Module;

/// How an [`Ixgbe82599`](super::Ixgbe82599) is built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelConfig {
    /// From which all freedoms are drawn. The same seed and the same accesses, steps and times
    /// give the same device.
    pub seed: u64,
    /// Which freedoms the device takes.
    pub latitude: Latitude,
    /// Which rules it insists on.
    pub rules: Rules,
    /// Which member of the family it is.
    pub device: DeviceId,
    /// The station address in the EEPROM.
    pub mac: [u8; 6],
    /// A fault: the checksum of the EEPROM is wrong.
    pub bad_eeprom: bool,
    /// What is in the cage of [`DeviceId::Sfp`].
    pub module: Module,
}

impl Default for ModelConfig {
    /// Seed 0, every freedom taken, the backplane device, a locally administered address.
    fn default() -> Self {
        Self {
            seed: 0,
            latitude: Latitude::default(),
            rules: Rules::default(),
            device: DeviceId::Kx4,
            mac: [0x02, 0x00, 0x00, 0x82, 0x59, 0x99],
            bad_eeprom: false,
            module: Module::default(),
        }
    }
}

/// What the device calls itself. All of them have the link of a backplane, but that of SFP+ wants
/// its laser switched on. Behind MDIO the X540 alone has a PHY, which has no say in the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DeviceId {
    /// 82599, KX4 backplane: 10f7.
    #[default]
    Kx4,
    /// 82599, XAUI: 10fc.
    Xaui,
    /// 82599, SFP+: 10fb.
    Sfp,
    /// X540, 10GBASE-T: 1528.
    X540T,
}

impl DeviceId {
    /// The PCI device id.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Self::Kx4 => 0x10f7,
            Self::Xaui => 0x10fc,
            Self::Sfp => 0x10fb,
            Self::X540T => 0x1528,
        }
    }
}

/// Rules on which sources differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// With WTHRESH = 0 the last descriptor of *every* frame must have RS, as the X550 datasheet
    /// says in one place. Elsewhere (82599 datasheet 8.2.3.9.10) one in 40 descriptors is
    /// enough, and DPDK lives by that.
    pub every_frame_reports: bool,
    /// What the datasheet asks for and Linux's ixgbe does not do: tables without an initial value
    /// are written before RXCTRL.RXEN, bit 12 of DCA_RXCTRL is cleared, the arbiter is off
    /// while the transmit packet buffers are set up, DTXMXSZRQ is raised, no RS with WTHRESH > 0;
    /// and a receive descriptor that is given has no DD. SRRCTL is not written while its queue is
    /// enabled, nothing is read where no register is (`ethtool -d` does), and the data path is halted
    /// before RXCTRL.RXEN on an X540 too.
    pub beyond_linux: bool,
    /// What the datasheet asks for and DPDK's ixgbe does not do: packet buffers 1 to 7 are emptied,
    /// heads are not written while their queue is enabled, PTHRESH comes with an HTHRESH,
    /// RDRXCTL.RSCACKC and FCOE_WRFIX are set, the lengths in IP headers are zero with TSE; and what
    /// our own design asks for: a completion of the last frame before each doorbell, and MSI-X with
    /// Multiple_MSIX (with one vector GPIE has it the other way as well).
    pub beyond_dpdk: bool,
}

impl Default for Rules {
    /// The datasheet, in its lenient reading about RS.
    fn default() -> Self {
        Self {
            every_frame_reports: false,
            beyond_linux: true,
            beyond_dpdk: true,
        }
    }
}

impl Rules {
    /// What Linux's ixgbe keeps.
    #[must_use]
    pub const fn linux() -> Self {
        Self {
            every_frame_reports: false,
            beyond_linux: false,
            beyond_dpdk: true,
        }
    }

    /// What DPDK's ixgbe keeps, which leaves out some of what Linux's leaves out as well.
    #[must_use]
    pub const fn dpdk() -> Self {
        Self {
            every_frame_reports: false,
            beyond_linux: false,
            beyond_dpdk: false,
        }
    }
}

/// What the specification leaves to the hardware, switch by switch. [`Latitude::default`] has all
/// of them on, as a driver must expect them; [`Latitude::none`] is the most obliging device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Latitude {
    /// The EEPROM has sections, whose words count in its checksum.
    pub eeprom_sections: bool,
    /// DD, or the head, is written some time after the frame was sent or stored.
    pub late_write_back: bool,
    /// DDs are written several at once.
    pub batched_write_back: bool,
    /// A transmit descriptor that is written back holds nothing of what the driver wrote into it
    /// (all fields but the status are reserved then).
    pub write_back_clobbers: bool,
    /// TDH and RDH read as the next descriptor to be *fetched*: they are no means to reclaim.
    pub head_runs_ahead: bool,
    /// A step handles a few descriptors and may stop in the middle of a frame.
    pub partial_progress: bool,
    /// Queues are served in an order that changes.
    pub queues_in_any_order: bool,
    /// A receive buffer is filled with rubbish as soon as its descriptor is fetched.
    pub poison_receive_buffers: bool,
    /// In all receive descriptors of a frame but the last, only DD, EOP and the length mean
    /// something; the rest is rubbish.
    pub rubbish_before_eop: bool,
    /// A queue's interrupt may come before the DD that it is for. It comes again afterwards.
    pub early_interrupts: bool,
    /// A vector may fire without any cause.
    pub spurious_interrupts: bool,
    /// An MSI-X message may arrive up to 0.5 ms after it was due.
    pub late_interrupts: bool,
    /// Registers that have no initial value hold rubbish until they are written, and keep what
    /// they hold over a reset.
    pub undefined_defaults: bool,
    /// CTRL.RST takes up to 1 ms to clear itself.
    pub slow_reset: bool,
    /// Loading the EEPROM after a reset, and reading a word of it, takes time; DMA initialisation
    /// is done after that only.
    pub slow_nvm: bool,
    /// RXDCTL.ENABLE and TXDCTL.ENABLE read as they were up to 50 µs after they were written.
    pub slow_queue_enable: bool,
    /// The receive data path takes up to 20 µs to drain after SECRXCTRL.RX_DIS.
    pub slow_drain: bool,
    /// The link takes up to 5 ms to come up.
    pub slow_link: bool,
    /// SWSM.SMBI is found set, as the software before us left it, and after a reset firmware
    /// holds the semaphores for a while.
    pub slow_semaphores: bool,
    /// After a master disable, or with bus mastering off, requests under way take up to 50 µs to
    /// end, during which a frame may be finished and write-backs may still arrive.
    pub late_master_disable: bool,
    /// A UDP packet over IPv4 without a checksum may be marked as having a wrong one (an erratum
    /// of the 82599, not of the X540, that Linux ixgbe works around).
    pub udp_without_checksum_fails: bool,
    /// The laser of a module is off after a reset.
    pub laser_off: bool,
    /// Octets that are counted between the reading of the two halves of a long counter are lost. No
    /// source at hand says so or otherwise.
    pub forgets_octets: bool,
    /// A module holds its clock down for a while, and does not acknowledge now and then.
    pub slow_module: bool,
}

impl Latitude {
    /// No freedom at all: everything happens at once, whole and in order.
    #[must_use]
    pub const fn none() -> Self {
        Self::uniform(false)
    }

    const fn uniform(on: bool) -> Self {
        Self {
            eeprom_sections: on,
            late_write_back: on,
            batched_write_back: on,
            write_back_clobbers: on,
            head_runs_ahead: on,
            partial_progress: on,
            queues_in_any_order: on,
            poison_receive_buffers: on,
            rubbish_before_eop: on,
            early_interrupts: on,
            spurious_interrupts: on,
            late_interrupts: on,
            undefined_defaults: on,
            slow_reset: on,
            slow_nvm: on,
            slow_queue_enable: on,
            slow_drain: on,
            slow_link: on,
            slow_semaphores: on,
            late_master_disable: on,
            udp_without_checksum_fails: on,
            laser_off: on,
            forgets_octets: on,
            slow_module: on,
        }
    }
}

impl Default for Latitude {
    /// All freedoms.
    fn default() -> Self {
        Self::uniform(true)
    }
}
