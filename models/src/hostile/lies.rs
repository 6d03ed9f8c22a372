//! The lies by name, sets of them, and how often each was told.

use std::fmt;

/// A lie that a [hostile](super) device tells. Registers are named as the 82574 has them; another
/// device lies in those of its own that say the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
#[non_exhaustive]
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

/// How many lies there are.
pub(crate) const COUNT: usize = Lie::LinkFlap as usize + 1;

impl Lie {
    /// All of them, in order.
    pub const ALL: [Self; COUNT] = [
        Self::RegisterAllOnes,
        Self::Removal,
        Self::RegisterRandom,
        Self::RegisterBitFlip,
        Self::RegisterNonsense,
        Self::ReadyNever,
        Self::ReadyAtOnce,
        Self::RingIndex,
        Self::WriteLost,
        Self::ConfigAllOnes,
        Self::CapabilityLoop,
        Self::CapabilityNonsense,
        Self::TransactionsPending,
        Self::IdChanged,
        Self::DoneAtRandom,
        Self::DoneTakenAway,
        Self::WrongLength,
        Self::ErrorBits,
        Self::RandomDescriptor,
        Self::WriteBackTwice,
        Self::WriteBackOutOfOrder,
        Self::WriteBackLost,
        Self::OtherRing,
        Self::ScribbleRing,
        Self::ScribbleBuffer,
        Self::WildWrite,
        Self::WriteWhileQuiet,
        Self::InterruptAtRandom,
        Self::InterruptLost,
        Self::NeverQuiet,
        Self::ResetNeverClears,
        Self::ResetClearsNothing,
        Self::LinkFlap,
    ];

    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    const fn bit(self) -> u64 {
        1 << self as u64
    }
}

/// A set of [`Lie`]s.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lies(u64);

impl Lies {
    /// Every lie.
    #[must_use]
    pub const fn all() -> Self {
        Self((1 << COUNT) - 1)
    }

    /// No lie.
    #[must_use]
    pub const fn none() -> Self {
        Self(0)
    }

    /// This one alone.
    #[must_use]
    pub const fn only(lie: Lie) -> Self {
        Self(lie.bit())
    }

    /// These and `lie`.
    #[must_use]
    pub const fn with(self, lie: Lie) -> Self {
        Self(self.0 | lie.bit())
    }

    /// These but not `lie`.
    #[must_use]
    pub const fn without(self, lie: Lie) -> Self {
        Self(self.0 & !lie.bit())
    }

    /// Whether `lie` is among them.
    #[must_use]
    pub const fn contains(self, lie: Lie) -> bool {
        self.0 & lie.bit() != 0
    }

    /// From a list.
    pub(crate) const fn of(list: &[Lie]) -> Self {
        let mut set = Self::none();
        let mut rest = list;
        while let [lie, others @ ..] = rest {
            set = set.with(*lie);
            rest = others;
        }
        set
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The lies in the set, in order.
    pub fn iter(self) -> impl Iterator<Item = Lie> {
        Lie::ALL.into_iter().filter(move |lie| self.contains(*lie))
    }
}

impl Default for Lies {
    /// All of them.
    fn default() -> Self {
        Self::all()
    }
}

impl fmt::Debug for Lies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// How often each lie was told since the device was made. A lie that lasts is counted once for
/// the time that it lasts; one in memory when it is written, whether that faults or not.
#[derive(Clone, PartialEq, Eq)]
pub struct LieCounters([u64; COUNT]);

impl LieCounters {
    /// How often `lie` was told.
    #[must_use]
    pub fn told(&self, lie: Lie) -> u64 {
        self.0.get(lie.index()).copied().unwrap_or(0)
    }

    /// How many lies were told.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(crate) fn count(&mut self, lie: Lie) {
        if let Some(count) = self.0.get_mut(lie.index()) {
            *count += 1;
        }
    }
}

impl Default for LieCounters {
    /// All zero.
    fn default() -> Self {
        Self([0; COUNT])
    }
}

impl fmt::Debug for LieCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = Lie::ALL.into_iter().filter(|lie| self.told(*lie) > 0);
        f.debug_map()
            .entries(told.map(|lie| (lie, self.told(lie))))
            .finish()
    }
}
