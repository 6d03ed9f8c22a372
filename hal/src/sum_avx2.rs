//! Sums by the vectors of 32 bytes of x86-64 (AVX2).

use core::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi16,
    _mm256_setzero_si256, _mm256_storeu_si256, _mm256_xor_si256,
};

use super::portable;

/// Fewest bytes for which it pays to set up vectors.
pub(super) const MIN: usize = 128;

/// Fewest bytes for which it pays to copy by vectors: less is copied by `memcpy`, and then summed.
pub(super) const FUSED_MIN: usize = 512;

/// Bytes of a vector.
const VECTOR: usize = 32;
/// Vectors in one turn of the loop, each with an accumulator of its own.
const WAYS: usize = 4;
/// Turns after which accumulators are emptied: all of them together, with sums of two words of at
/// least −2^16 each, fit 32 bits.
const TURNS: usize = 1 << 12;

/// Whether the processor has AVX2 and the system saves its registers.
#[inline]
pub(super) fn is_there() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

/// The sum of `bytes`, not folded.
#[target_feature(enable = "avx2")]
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let (vectors, rest) = bytes.as_chunks::<VECTOR>();
    let mut sum = 0;
    for block in vectors.chunks(TURNS * WAYS) {
        let mut accumulators = [_mm256_setzero_si256(); WAYS];
        let (turns, last) = block.as_chunks::<WAYS>();
        for turn in turns {
            for (accumulator, bytes) in accumulators.iter_mut().zip(turn) {
                *accumulator = add(*accumulator, load(bytes));
            }
        }
        for (accumulator, bytes) in accumulators.iter_mut().zip(last) {
            *accumulator = add(*accumulator, load(bytes));
        }
        sum += total(&accumulators, block.len());
    }
    sum + portable::sum(rest)
}

/// Copies `source` to the front of `target` and returns the sum of what was copied, not folded.
#[target_feature(enable = "avx2")]
pub(super) fn copy(source: &[u8], target: &mut [u8]) -> u64 {
    let len = source.len().min(target.len());
    let (from, from_rest) = source.get(..len).unwrap_or_default().as_chunks::<VECTOR>();
    let (to, to_rest) = target
        .get_mut(..len)
        .unwrap_or_default()
        .as_chunks_mut::<VECTOR>();
    let mut sum = 0;
    for (from, to) in from.chunks(TURNS * WAYS).zip(to.chunks_mut(TURNS * WAYS)) {
        let mut accumulators = [_mm256_setzero_si256(); WAYS];
        let (from_turns, from_last) = from.as_chunks::<WAYS>();
        let (to_turns, to_last) = to.as_chunks_mut::<WAYS>();
        for (from, to) in from_turns.iter().zip(to_turns) {
            for ((accumulator, from), to) in accumulators.iter_mut().zip(from).zip(to) {
                let bytes = opaque(load(from));
                store(to, bytes);
                *accumulator = add(*accumulator, bytes);
            }
        }
        for ((accumulator, from), to) in accumulators.iter_mut().zip(from_last).zip(to_last) {
            let bytes = opaque(load(from));
            store(to, bytes);
            *accumulator = add(*accumulator, bytes);
        }
        sum += total(&accumulators, from.len());
    }
    to_rest.copy_from_slice(from_rest);
    sum + portable::sum(from_rest)
}

/// Adds the words of a vector, two by two, to numbers of 32 bits.
///
/// The instruction that adds two words takes them for signed ones: with its highest bit turned
/// over, a word is its value less 2^15, and [`total`] adds that again.
#[inline]
#[target_feature(enable = "avx2")]
fn add(accumulator: __m256i, bytes: __m256i) -> __m256i {
    let signed = _mm256_xor_si256(bytes, _mm256_set1_epi16(i16::MIN));
    _mm256_add_epi32(accumulator, _mm256_madd_epi16(signed, _mm256_set1_epi16(1)))
}

/// The sum that accumulators have of so many vectors.
#[inline]
#[target_feature(enable = "avx2")]
fn total(accumulators: &[__m256i; WAYS], vectors: usize) -> u64 {
    let [a, b, c, d] = *accumulators;
    let all = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d));
    let mut bytes = [0; VECTOR];
    store(&mut bytes, all);
    let lanes = bytes.as_chunks::<4>().0.iter();
    let sum: i64 = lanes.map(|lane| i64::from(i32::from_ne_bytes(*lane))).sum();
    let words = (vectors * VECTOR / 2) as i64;
    // At least 0, as each word was, and at most 2^16 × 2^20.
    (sum + (words << 15)).cast_unsigned()
}

/// The same bytes, of which the compiler does not know that they are. Else it takes all stores of a
/// loop for a copy, calls `memcpy` for them, and sums in a second pass.
#[inline]
#[target_feature(enable = "avx2")]
fn opaque(mut bytes: __m256i) -> __m256i {
    // SAFETY: there is no instruction.
    unsafe {
        core::arch::asm!("/* {0} */", inout(ymm_reg) bytes, options(pure, nomem, nostack, preserves_flags));
    }
    bytes
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; VECTOR]) -> __m256i {
    // SAFETY: there are so many bytes, and this load asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(bytes: &mut [u8; VECTOR], vector: __m256i) {
    // SAFETY: there is room for so many bytes, and this store asks for no alignment.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) };
}
