//! The lies by name, sets of them, and how often each was told.

use crate::lies::lies;

lies! {
    /// A lie that a [hostile](super) device tells. Registers are named as the 82574 has them; another
    /// device lies in those of its own that say the same.
    pub enum Lie {
        /// Registers read all ones: once, or for a while.
        RegisterAllOnes,
        /// The device is gone: registers and configuration space read all ones, writes are lost, and
        /// no step does anything. For a while, after which it is back as it was, or for ever.
        Removal,
        /// A register reads as a random value.
        RegisterRandom,
        /// One to three bits of a register read wrong.
        RegisterBitFlip,
        /// STATUS, ICR, EERD, MDIC or a statistic reads as a value that has its form and no sense:
        /// done with wrong data, an error, every cause at once, a count near its end.
        RegisterNonsense,
        /// Bits that say "ready" read 0 for a while: EERD.DONE, MDIC.READY, EECD.AUTO_RD, the
        /// configuration done bits of EEMNGCTL, and the ownership bits of SWSM and EXTCNF_CTRL.
        ReadyNever,
        /// EERD.DONE and MDIC.READY read 1 for a while, whether there is data or not.
        ReadyAtOnce,
        /// TDH, TDT, RDH or RDT reads as a value that need not be inside the ring.
        RingIndex,
        /// A register write is lost; a doorbell, for one.
        WriteLost,
        /// Configuration space reads all ones: once, or for a while.
        ConfigAllOnes,
        /// The pointer to a capability, or from one to the next, points to where it stands or
        /// anywhere else.
        CapabilityLoop,
        /// A word of a capability reads as a random value: its kind, version, length, table size.
        CapabilityNonsense,
        /// Transactions Pending reads wrong: once.
        TransactionsPending,
        /// Vendor and device id read as something else.
        IdChanged,
        /// DD (and perhaps EOP, with a random length) is set on any descriptor of any ring: one not
        /// fetched, one reclaimed long ago, a context descriptor.
        DoneAtRandom,
        /// DD is cleared in a descriptor that was written back.
        DoneTakenAway,
        /// The length in a receive write-back is 0, 0xffff, one more than the largest buffer, or
        /// random.
        WrongLength,
        /// Every error bit of a receive write-back is set.
        ErrorBits,
        /// Random bytes over a whole descriptor.
        RandomDescriptor,
        /// A write-back is written again some time later, whatever is in its place by then.
        WriteBackTwice,
        /// A write-back is written after later ones.
        WriteBackOutOfOrder,
        /// A write-back is never written.
        WriteBackLost,
        /// A write-back is written to another ring.
        OtherRing,
        /// Random bytes over a part of a ring.
        ScribbleRing,
        /// Random bytes into a buffer that a descriptor named, even if long ago.
        ScribbleBuffer,
        /// Random bytes to an address that is off from a known one by anything.
        WildWrite,
        /// Any of the writes above while the driver believes the device quiet: during and after a
        /// reset, with bus mastering off, or with both units disabled.
        WriteWhileQuiet,
        /// A vector fires without a cause, perhaps one that was never asked for.
        InterruptAtRandom,
        /// No vector fires for a while.
        InterruptLost,
        /// STATUS.GIO_MASTER_ENABLE and Transactions Pending read 1 for a while.
        NeverQuiet,
        /// CTRL.RST, once written, reads 1 for a while.
        ResetNeverClears,
        /// CTRL.RST reads 0 at once, and nothing was reset: the device goes on as before.
        ResetClearsNothing,
        /// The link is lost and found again, step by step, for a while.
        LinkFlap,
    }
}
