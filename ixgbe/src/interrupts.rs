//! MSI-X: a vector for each queue and one for the rest, or fewer.
//!
//! As Linux ixgbe sets the 82599 and the X540 up (`ixgbe_configure_msix`, `ixgbe_setup_gpie`): a
//! message clears its cause (EIAC) and masks its vector (EIAM), and the vector is let through again
//! after the work is done (EIMS_EX). The rest (the link, a full packet buffer) is read from EICR
//! when its vector has fired; with OCD the reading clears only that. Time between two messages of a
//! vector: EITR.
//!
//! An erratum of the 82599 (1 in the specification update: a cause that is set by EICS may never be
//! cleared) is of no concern: it takes neither pending bits nor auto-masking, and here are both.

use pagewire_hal::driver::{Register, Vectors};
use pagewire_hal::{Causes, Platform, Registers};

use crate::bits::{Cause, Eitr, Gpie, Ivar};
use crate::regs::{
    Bar, EIAC, EIAM_EX, EICR, EICS_EX, EIMC, EIMC_EX, EIMS, EIMS_EX, EITR, EITR_HIGH, GPIE, IVAR,
    IVAR_MISC,
};

/// Vectors with a moderation register below [`EITR_HIGH`] (`ixgbe_type.h`, `IXGBE_EITR`).
const LOW_VECTORS: u16 = 24;

/// All vectors, 0 to 31 and 32 to 63.
const fn all(vectors: Vectors) -> [u32; 2] {
    let all = (1u64 << vectors.count()) - 1;
    [all as u32, (all >> 32) as u32]
}

const REST: Cause = Cause::LSC.union(Cause::RX_MISS);

/// Assigns the causes to the vectors and lets them through, at most one message of each vector in
/// `interval` µs.
pub(crate) fn program<R: Registers>(registers: &Bar<R>, vectors: Vectors, interval: u16) {
    let mode = Gpie::MULTIPLE_MSIX | Gpie::PBA_SUPPORT | Gpie::OTHER_CLEAR_DISABLE | Gpie::EIAME;
    registers.write(GPIE, mode.bits());
    for pair in 0..vectors.pairs() {
        let entry = |index| u32::from(vectors.queue(index)) | Ivar::VALID.bits();
        let both = entry(2 * pair) | entry(2 * pair + 1) << 8;
        let shift = 16 * u32::from(pair % 2);
        let register = IVAR.at(u32::from(pair / 2));
        registers.change(register, 0xFFFF << shift, both << shift);
    }
    let rest = u32::from(vectors.rest()) | Ivar::VALID.bits();
    registers.write(IVAR_MISC, rest << 8);
    for vector in 0..vectors.count() {
        registers.write(moderation(vector), throttle(interval));
    }
    // Vectors 16 and above have no bit here; Linux writes none elsewhere either.
    registers.write(EIAC, Cause::VECTORS.bits());
    let [low, high] = all(vectors);
    registers.write(EIAM_EX, low);
    registers.write(EIAM_EX.at(1), high);
    unmask(registers, [low, high]);
    registers.write(EIMS, REST.bits());
}

const fn moderation(vector: u16) -> Register {
    match vector.checked_sub(LOW_VECTORS) {
        None => EITR.at(vector as u32),
        Some(high) => EITR_HIGH.at(high as u32),
    }
}

/// An interval of `micros` µs in the units of the register, 2.048 µs (see
/// [`Eitr::INTERVAL`]), rounded down as DPDK does. Without [`Eitr::COUNTER_WRITE_DISABLE`] the
/// write would fire the vector at once (Linux `ixgbe_write_eitr`).
const fn throttle(micros: u16) -> u32 {
    let units = micros as u32 * 1000 / 2048;
    units << 3 & Eitr::INTERVAL.bits() | Eitr::COUNTER_WRITE_DISABLE.bits()
}

fn unmask<R: Registers>(registers: &Bar<R>, vectors: [u32; 2]) {
    for (n, word) in (0..).zip(vectors) {
        if word != 0 {
            registers.write(EIMS_EX.at(n), word);
        }
    }
}

/// Masks everything.
pub(crate) fn mask<R: Registers>(registers: &Bar<R>) {
    registers.write(EIMC, Cause::ALL.bits());
    registers.write(EIMC_EX, u32::MAX);
    registers.write(EIMC_EX.at(1), u32::MAX);
}

/// Masks everything, then reads the causes that are pending away.
pub(crate) fn clear<R: Registers>(registers: &Bar<R>) {
    mask(registers);
    registers.read(EICR);
}

/// Sets the cause of `vector`, from 0 to 63, as if it had come up (Linux
/// `ixgbe_irq_rearm_queues`).
pub(crate) fn fire<R: Registers>(registers: &Bar<R>, vector: u16) {
    let half = u32::from(vector / 32);
    registers.write(EICS_EX.at(half), 1 << (vector % 32));
}

/// What has fired since the last time; lets it fire again.
pub(crate) fn take<P: Platform>(
    platform: &mut P,
    registers: &Bar<P::Registers>,
    vectors: Vectors,
) -> Causes {
    let (fired, mut causes) = vectors.take(platform);
    if fired >> vectors.rest() & 1 != 0 {
        causes |= take_rest(registers);
    }
    unmask(registers, [fired as u32, (fired >> 32) as u32]);
    causes
}

/// Reads the causes that have no vector of their own, which clears them, and lets them through.
fn take_rest<R: Registers>(registers: &Bar<R>) -> Causes {
    let word = registers.read(EICR);
    if word == u32::MAX {
        return Causes::LINK;
    }
    let found = Cause::from_bits_retain(word);
    let rest = found & REST;
    if !rest.is_empty() {
        // Where reading has not cleared them: only what was found, as a cause that came since
        // must not be lost.
        registers.write(EICR, rest.bits());
    }
    registers.write(EIMS, REST.bits());
    let mut causes = Causes::empty();
    causes.set(Causes::OVERRUN, found.contains(Cause::RX_MISS));
    causes.set(Causes::LINK, found.contains(Cause::LSC));
    causes
}

#[cfg(test)]
mod tests {
    use super::throttle;

    #[test]
    fn moderation_stays_in_its_field() {
        assert_eq!(throttle(0), 1 << 31);
        assert_eq!(throttle(50), 1 << 31 | 24 << 3);
        assert_eq!(throttle(1000), 1 << 31 | 488 << 3);
    }
}
