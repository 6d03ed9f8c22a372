//! Where QEMU's own e1000e does otherwise than the datasheet: switches, all off by default.

/// What QEMU's e1000e does and the datasheet does not allow, or does not say. Learned from QEMU's
/// source (`hw/net/e1000e_core.c`, `net_tx_pkt.c`, `net/eth.c`), some of it first from running
/// drivers on it.
///
/// They are no latitude of the hardware, so [`Latitude::default`](super::Latitude::default) has
/// none of them: a driver may rely on the datasheet. [`Latitude::qemu`](super::Latitude::qemu) has
/// all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QemuDeviations {
    /// TCTL.PSP does nothing: short frames leave short.
    pub no_padding: bool,
    /// A frame that does not fit the free receive descriptors is not missed: it waits outside
    /// until there is room, and so do all behind it, however many. RXO is raised when the wait
    /// begins, nothing is counted. None is taken while receiving is disabled, either. Over
    /// a reset the frame that waits stays.
    pub frames_wait: bool,
    /// A frame that is too long is counted in ROC and nowhere else, not in RLEC, TPR or TOR; and
    /// also if the address filter does not want it (8254x SDM 13.7.36: ROC counts what passed).
    pub oversize_in_roc_alone: bool,
    /// A frame that comes with less than 60 bytes is padded and kept, and counted in RUC, as an
    /// error, as well.
    pub short_frames_in_ruc: bool,
    /// A frame whose IPv4 or IPv6 header is cut off (or whose IPv4 header says that it has less
    /// than 20 bytes) is not sent. Its descriptors are marked done.
    pub drops_cut_headers: bool,
    /// The place and the content of a checksum are found by parsing the frame, not taken from the
    /// context: TXSM works for TCP and UDP right behind the IP header (and its extensions), sums
    /// to the end of the frame with a pseudo-header of its own making, and does nothing for any
    /// other protocol. IXSM also sets the total length of the IPv4 header to what the frame has,
    /// and does nothing if there is none. (QEMU writes into an IPv6 header then; the model does
    /// not, as that is a violation anyway.) A sum of zero goes out as all ones, for TCP too.
    pub checksums_by_protocol: bool,
    /// POPTS counts in the last data descriptor of a frame, not in the first.
    pub options_of_last_descriptor: bool,
    /// IC in a legacy descriptor does nothing.
    pub no_legacy_checksum: bool,
    /// The link is not looked at when sending: what is posted while it is down is marked done,
    /// counted as sent, and lost if there is no carrier.
    pub sends_without_link: bool,
    /// A write-back raises the cause of its queue alone with MSI-X (TXQ0, RXQ0), not TXDW, RXT0 or
    /// RXDMT0; and these alone without.
    pub queue_causes_alone: bool,
    /// Writing OTHER to ICR clears the causes behind it as well, LSC among them.
    pub other_clears_its_causes: bool,
    /// IXSM is never set in a receive descriptor: what was not checked has neither IPCS nor TCPCS.
    pub never_ixsm: bool,
    /// The packet checksum of a receive descriptor is 0.
    pub no_packet_checksum: bool,
    /// The frame check sequence that is stored without RCTL.SECRC is 0.
    pub zero_check_sequence: bool,
}

impl QemuDeviations {
    /// As the datasheet has it.
    #[must_use]
    pub const fn none() -> Self {
        Self::uniform(false)
    }

    /// As QEMU does it.
    #[must_use]
    pub const fn all() -> Self {
        Self::uniform(true)
    }

    const fn uniform(on: bool) -> Self {
        Self {
            no_padding: on,
            frames_wait: on,
            oversize_in_roc_alone: on,
            short_frames_in_ruc: on,
            drops_cut_headers: on,
            checksums_by_protocol: on,
            options_of_last_descriptor: on,
            no_legacy_checksum: on,
            sends_without_link: on,
            queue_causes_alone: on,
            other_clears_its_causes: on,
            never_ixsm: on,
            no_packet_checksum: on,
            zero_check_sequence: on,
        }
    }
}

impl Default for QemuDeviations {
    /// None.
    fn default() -> Self {
        Self::none()
    }
}
