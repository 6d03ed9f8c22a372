//! The hash of what the fake receives.

use pagewire_hal::{HashInput, RxHash};

use super::Fault;

/// The key: no two places in it are alike.
pub(crate) fn key() -> [u8; 40] {
    std::array::from_fn(|at| (at as u8).wrapping_mul(37) ^ 0x6d)
}

/// Toeplitz' function: the key is moved along under the input, bit by bit.
fn toeplitz(input: &[u8]) -> u32 {
    let key = key();
    let mut window = key[..8]
        .iter()
        .fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    let mut next = key[8..].iter();
    let mut hash = 0;
    for byte in input {
        for bit in 0..8 {
            if byte << bit & 0x80 != 0 {
                hash ^= (window << bit >> 32) as u32;
            }
        }
        window = window << 8 | u64::from(*next.next().unwrap_or(&0));
    }
    hash
}

/// The hash of a frame, if it is of IP.
pub(crate) fn of(frame: &[u8], fault: Fault) -> Option<RxHash> {
    let (addresses, protocol, ports) = match frame[12..14] {
        [8, 0] => {
            let is_fragment = frame[20] & 0x3f != 0 || frame[21] != 0;
            let behind = 14 + usize::from(frame[14] & 0xf) * 4;
            (26..34, frame[23], (!is_fragment).then_some(behind))
        }
        [0x86, 0xdd] => (22..54, frame[20], Some(54)),
        _ if fault == Fault::HashOfNothing => (0..12, 0, None),
        _ => return None,
    };
    let mut fields = frame[addresses].to_vec();
    let mut input = HashInput::Addresses;
    if let Some(at) = ports.filter(|_| protocol == 6 && fault != Fault::HashWithoutPorts) {
        fields.extend_from_slice(&frame[at..at + 4]);
        input = HashInput::AddressesAndPorts;
    }
    let mut value = toeplitz(&fields);
    if fault == Fault::HashBackwards {
        value = value.swap_bytes();
    }
    Some(RxHash { value, input })
}
