//! The lies by name, sets of them, and how often each was told.

use crate::lies::lies;

lies! {
    /// A lie that a [hostile](super) device tells. One that *lasts* goes on for a while.
    pub enum Lie {
        /// Configuration space reads all ones: once, or for a while.
        ConfigAllOnes,
        /// Vendor and device id read as something else: a legacy-only device's, for one.
        IdChanged,
        /// The pointer to a capability, or from one to the next, points to where it stands or
        /// anywhere else.
        CapabilityLoop,
        /// A capability reads as one of another kind, or its structure as one of another type.
        CapabilityMissing,
        /// The length of a vendor capability is 0, too small for its fields, or 255.
        CapabilityShort,
        /// The BAR of a structure is one that is not there, or a reserved number.
        CapabilityBar,
        /// The offset of a structure is beyond its BAR, odd, or near the end of 32 bits.
        CapabilityOffset,
        /// The length of a structure is 0, 1, one byte too small, or 32 bits of ones.
        CapabilityLength,
        /// notify_off_multiplier is 0, 1, 3, or so large that a doorbell leaves its BAR.
        NotifyMultiplier,
        /// A word of a capability reads as a random value.
        CapabilityNonsense,
        /// Registers read all ones: once, or for a while.
        RegisterAllOnes,
        /// The device is gone: registers and configuration space read all ones, writes are lost, and
        /// no step does anything. For a while, after which it is back as it was, or for ever.
        Removal,
        /// A register reads as a random value.
        RegisterRandom,
        /// One to three bits of a register read wrong.
        RegisterBitFlip,
        /// A register write is lost; a doorbell, for one.
        WriteLost,
        /// device_feature reads otherwise than before: nothing, everything, without VERSION_1.
        FeaturesChanged,
        /// FEATURES_OK, or every bit of the status, reads 0 for a while.
        StatusForgotten,
        /// DEVICE_NEEDS_RESET is set, with a configuration interrupt, though nothing is wrong.
        NeedsReset,
        /// After a reset was asked for, the status does not read 0 for a while.
        ResetNeverEnds,
        /// The status reads 0 at once, and nothing was reset: the device goes on as before, until the
        /// status is written again.
        ResetClearsNothing,
        /// num_queues is 0, 1 or 65535.
        QueueCount,
        /// queue_size is 0, no power of two, more than the queue may have, or another one than before.
        QueueSize,
        /// queue_notify_off leads beyond the BAR, or to another queue's doorbell.
        NotifyOffset,
        /// A vector reads back as NO_VECTOR, as if it had been refused.
        VectorRefused,
        /// queue_enable reads the other way.
        EnableWrong,
        /// queue_reset reads 1 for a while after it was written.
        QueueResetNeverEnds,
        /// config_generation reads otherwise each time, for a while.
        GenerationUnsettled,
        /// For a while the MAC address is zero, all ones, or a multicast one.
        MacNonsense,
        /// The MTU is 0, 67, 68, 65535 or random.
        MtuNonsense,
        /// max_virtqueue_pairs is 0, more than the queues there are, or beyond its range.
        PairsNonsense,
        /// The link is lost and found again, step by step, for a while.
        LinkFlap,
        /// For a while no step does anything, though registers answer.
        Stall,
        /// The used index is ahead of the entries that were written (split), or an entry is written
        /// ahead of its place (packed).
        IndexAhead,
        /// The used index goes back (split), or an entry is written behind its place (packed).
        IndexBack,
        /// The id of a used buffer is no index of the queue: beyond it, or (split) more than 16 bits.
        IdOutOfRange,
        /// The id of a used buffer is one that the device does not have.
        IdNotOutstanding,
        /// A buffer is used twice, or some hundred times.
        UsedTwice,
        /// A buffer is never used.
        UsedLost,
        /// The length of a used buffer is more than the buffer has; of one for transmission, not 0.
        LengthTooLong,
        /// The length of a used receive buffer is 0, shorter than the header, the header alone, or
        /// shorter than what was written.
        LengthTooShort,
        /// With IN_ORDER, the buffer that is used is not the next one.
        OrderBroken,
        /// AVAIL, USED, WRITE or random flags of a used descriptor are wrong (packed).
        FlagsFlipped,
        /// The used index becomes random (split), or any descriptor becomes a used one with a random
        /// id and length (packed), though nothing was done.
        UsedAtRandom,
        /// The device asks for doorbells at a random place, or for none, or writes nonsense there.
        EventNonsense,
        /// Random bytes over a part of a ring that the device may write.
        ScribbleRing,
        /// Random bytes into a buffer that a descriptor named, even if long ago.
        ScribbleBuffer,
        /// Random bytes to an address that is off from a known one by anything.
        WildWrite,
        /// Any of the writes above while the driver believes the device quiet: before DRIVER_OK,
        /// during and after a reset, with bus mastering off.
        WriteWhileQuiet,
        /// num_buffers of a received frame is 0.
        BuffersZero,
        /// num_buffers is more than the frame has, than there are, or than the queue has.
        BuffersMany,
        /// gso_type of a received frame is unknown, or one that was not negotiated.
        GsoTypeUnknown,
        /// gso_type says that a frame is large, and gso_size is 0 or more than the frame has.
        GsoSizeNonsense,
        /// NEEDS_CSUM, and csum_start or csum_offset are beyond the frame.
        ChecksumPlace,
        /// hdr_len is longer than the frame, or random.
        HeaderLength,
        /// Flags of the header that are unknown or contradict each other.
        HeaderFlags,
        /// Random bytes in the header.
        HeaderRandom,
        /// A command is used, and its answer was not written.
        AnswerMissing,
        /// A command is answered with a value that has no meaning, or with an error.
        AnswerGarbage,
        /// A command is never used.
        CommandLost,
        /// A vector fires without a cause, perhaps one that was never asked for.
        InterruptAtRandom,
        /// No vector fires for a while.
        InterruptLost,
    }
}
