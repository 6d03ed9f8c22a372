//! Numbers that a stranger cannot guess: initial sequence numbers (RFC 6528), ephemeral ports
//! (RFC 6056) and timestamp offsets (RFC 7323 section 5.4).

use core::fmt;
use core::net::SocketAddrV4;

use pagewire_hal::Instant;
use siphasher::sip::SipHasher24;

use crate::seq::SeqNumber;

/// Nanoseconds of one tick of the clock M (RFC 6528 section 3).
const NANOS_PER_TICK: u64 = 4_000;

/// What a [`hash`](IsnGenerator::hash) is for. Each purpose has its own numbers, so that the ones
/// a peer is shown (its port, its timestamps) tell nothing of the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The offset of the ephemeral port search. The local port is not yet known then: 0 is
    /// passed for it (RFC 6056 section 3.3.3).
    EphemeralPort,
    /// The offset of the timestamps clock of a connection.
    TimestampOffset,
}

/// Keyed SipHash-2-4 of a connection's addresses and ports. RFC 6528 names MD5; SipHash is what
/// Linux uses for the same thing.
#[derive(Clone)]
pub struct IsnGenerator {
    secret: [u8; 16],
}

impl fmt::Debug for IsnGenerator {
    /// Does not show the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IsnGenerator").finish_non_exhaustive()
    }
}

impl IsnGenerator {
    /// `secret` is random, not known to anyone else, and another one after each start.
    #[must_use]
    pub const fn new(secret: [u8; 16]) -> Self {
        Self { secret }
    }

    /// The initial sequence number of a connection that is opened at `now`: a clock that ticks
    /// each 4 µs, plus a hash of the four-tuple. Later incarnations of the same connection begin
    /// later in the sequence space; other connections begin anywhere.
    #[must_use]
    pub fn isn(&self, now: Instant, local: SocketAddrV4, remote: SocketAddrV4) -> SeqNumber {
        // The clock wraps after 4.8 hours as it should: only the low 32 bits count.
        let clock = (now.as_nanos() / NANOS_PER_TICK) as u32;
        SeqNumber(self.keyed(0, local, remote) as u32).add(clock)
    }

    /// 64 bits that look random, the same for the same purpose, addresses and ports.
    #[must_use]
    pub fn hash(&self, purpose: Purpose, local: SocketAddrV4, remote: SocketAddrV4) -> u64 {
        let label = match purpose {
            Purpose::EphemeralPort => 1,
            Purpose::TimestampOffset => 2,
        };
        self.keyed(label, local, remote)
    }

    /// The hash, with a label that keeps its uses apart.
    fn keyed(&self, label: u8, local: SocketAddrV4, remote: SocketAddrV4) -> u64 {
        let [l0, l1, l2, l3] = local.ip().octets();
        let [r0, r1, r2, r3] = remote.ip().octets();
        let [lp0, lp1] = local.port().to_be_bytes();
        let [rp0, rp1] = remote.port().to_be_bytes();
        let message = [label, l0, l1, l2, l3, lp0, lp1, r0, r1, r2, r3, rp0, rp1];
        SipHasher24::new_with_key(&self.secret).hash(&message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 40000);
    const REMOTE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 80);

    fn micros(micros: u64) -> Instant {
        Instant::from_nanos(micros * 1000)
    }

    #[test]
    fn the_clock_ticks_every_four_microseconds() {
        let generator = IsnGenerator::new([7; 16]);
        let start = generator.isn(Instant::ZERO, LOCAL, REMOTE);
        assert_eq!(generator.isn(micros(3), LOCAL, REMOTE), start);
        assert_eq!(generator.isn(micros(4), LOCAL, REMOTE), start.add(1));
        let second = generator.isn(micros(1_000_000), LOCAL, REMOTE);
        assert_eq!(second, start.add(250_000));
        let wrapped = generator.isn(micros(4 << 32), LOCAL, REMOTE);
        assert_eq!(wrapped, start);
    }

    #[test]
    fn every_part_of_the_input_changes_the_hash() {
        let hash =
            |secret, purpose, local, remote| IsnGenerator::new(secret).hash(purpose, local, remote);
        let offset = Purpose::TimestampOffset;
        let other_port = SocketAddrV4::new(*REMOTE.ip(), 81);
        let other_host = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 3), 80);
        let mut other_secret = [7; 16];
        other_secret[15] = 8;
        let all = [
            hash([7; 16], offset, LOCAL, REMOTE),
            hash(other_secret, offset, LOCAL, REMOTE),
            hash([7; 16], Purpose::EphemeralPort, LOCAL, REMOTE),
            hash([7; 16], offset, REMOTE, LOCAL),
            hash([7; 16], offset, LOCAL, other_port),
            hash([7; 16], offset, LOCAL, other_host),
            hash([7; 16], offset, other_port, REMOTE),
            IsnGenerator::new([7; 16]).keyed(0, LOCAL, REMOTE),
        ];
        for (index, one) in all.iter().enumerate() {
            assert_eq!(
                all.iter().filter(|&other| other == one).count(),
                1,
                "{index}"
            );
        }
        assert_eq!(all[0], hash([7; 16], offset, LOCAL, REMOTE));
    }

    #[test]
    fn hash_is_siphash_2_4() {
        // The reference vector of the SipHash paper, appendix A: key 00..0f, input 00..0e.
        let key: [u8; 16] = core::array::from_fn(|i| i as u8);
        let input: [u8; 15] = core::array::from_fn(|i| i as u8);
        let hash = SipHasher24::new_with_key(&key).hash(&input);
        assert_eq!(hash, 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let text = std::format!("{:?}", IsnGenerator::new([0xa5; 16]));
        assert_eq!(text, "IsnGenerator { .. }");
    }
}
