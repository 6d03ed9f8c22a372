//! The hash of a received packet, and the queue that it chooses.

use std::collections::{HashMap, HashSet};

use pagewire_hal::{HashInput, RxHash};

use super::Check;
use crate::Bench;
use crate::packet::{Kind, Transport, put, sum};
use crate::session::{ETHERNET, FAR_MAC, Received, Session};
use crate::verdict::{Verdict, ensure, not_run};

/// Connections that are hashed.
const FLOWS: u16 = 48;
/// Where the addresses of an IPv4 packet begin, behind its link header.
const IPV4_ADDRESSES: usize = 12;
const MEND: &str = "the hash lies in the descriptor together with what it is over; without that it \
                    means nothing, and `hash` is `None`";

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![Check {
        name: "hashes",
        promise: "a flow has one hash and comes to one queue, several spread; by Toeplitz' \
                  function where the key is known; what is not IP has none, and what is not \
                  offered is not there",
        run: hashes,
    }]
}

/// Bit `index` of `bytes`, the highest of the first byte being the first.
fn bit(bytes: &[u8], index: usize) -> bool {
    let byte = bytes.get(index / 8).copied().unwrap_or(0);
    byte << (index % 8) & 0x80 != 0
}

/// Toeplitz' function as Microsoft's specification of receive side scaling has it: for each bit of
/// the input that is set, the 32 bits of the key that begin at the same place.
fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let mut hash = 0;
    for index in (0..8 * input.len()).filter(|index| bit(input, *index)) {
        hash ^= (index..index + 32).fold(0, |word, at| word << 1 | u32::from(bit(key, at)));
    }
    hash
}

/// The fields of `frame`, of `kind`, that `input` names.
fn fields(kind: Kind, frame: &[u8], input: HashInput) -> Vec<u8> {
    let l3 = kind.l2_len();
    let l4 = l3 + kind.l3_len();
    let addresses = if kind.ipv6 {
        l3 + 8..l3 + 40
    } else {
        l3 + IPV4_ADDRESSES..l3 + 20
    };
    let mut fields = frame.get(addresses).unwrap_or_default().to_vec();
    if input == HashInput::AddressesAndPorts {
        fields.extend_from_slice(frame.get(l4..l4 + 4).unwrap_or_default());
    }
    fields
}

/// Sends `frame` and receives it.
fn one<B: Bench>(session: &mut Session<'_, B>, frame: &[u8], what: &str) -> Verdict<Received> {
    session.deliver(frame);
    match session.receive(1)?.into_iter().next() {
        Some(got) if got.is(frame) => Ok(got),
        _ => super::wrong(format!("{what} did not come, or as another")),
    }
}

/// A frame of flow `flow`, all its checksums right.
fn frame<B: Bench>(session: &mut Session<'_, B>, kind: Kind, flow: u16) -> Vec<u8> {
    let len = session.random.within(20, 200);
    let payload = session.random.bytes(len);
    let mut frame = kind.frame(session.mac, FAR_MAC, &payload);
    put(
        &mut frame,
        kind.l2_len() + kind.l3_len(),
        0x4000 + flow * 37,
    );
    kind.fill_checksums(&mut frame);
    frame
}

fn hashes<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    session.take_all()?;
    let offered = session.capabilities.rx_hash;
    for ipv6 in [false, true] {
        for transport in [Transport::Tcp(0), Transport::Tcp(12), Transport::Udp] {
            let kind = Kind::new(ipv6, 0, transport);
            for reset in [false, true] {
                if reset && offered {
                    session.reset()?;
                }
                flows(session, kind)?;
            }
        }
    }
    others(session)?;
    if !offered {
        return not_run("the device does not hash");
    }
    Ok(())
}

/// Three frames each of many flows.
fn flows<B: Bench>(session: &mut Session<'_, B>, kind: Kind) -> Verdict {
    let offered = session.capabilities.rx_hash;
    let key = session.bench.hash_key();
    let is_tcp = matches!(kind.transport, Transport::Tcp(_));
    let mut known: HashMap<u16, (Option<RxHash>, u16)> = HashMap::new();
    for round in 0..3 {
        for flow in 0..FLOWS {
            let sent = frame(session, kind, flow);
            let what = format!("round {round}, flow {flow} of {kind:?}");
            let got = one(session, &sent, &what)?;
            ensure!(
                offered || got.hash.is_none(),
                "what a device hashes is offered in `rx_hash` (rule 8)",
                "{what} has {:?}",
                got.hash
            );
            let due = got
                .hash
                .is_some_and(|hash| hash.input == HashInput::AddressesAndPorts);
            ensure!(
                !offered || !is_tcp || due,
                MEND,
                "{what} came with {:?}: of TCP it is over addresses and ports",
                got.hash
            );
            if let (Some(key), Some(hash)) = (&key, got.hash) {
                let right = toeplitz(key, &fields(kind, &sent, hash.input));
                ensure!(
                    hash.value == right,
                    "how the key lies in its registers, and the hash in the descriptor",
                    "{what} came with {hash:x?}, and by Toeplitz' function it is {right:x}"
                );
            }
            let seen = (got.hash, got.queue);
            let first = *known.entry(flow).or_insert(seen);
            ensure!(
                !offered || first == seen,
                "a flow has one hash and one queue",
                "{what} came with hash and queue {seen:x?}, and before with {first:x?}"
            );
        }
    }
    let hashes: HashSet<u32> = known
        .values()
        .filter_map(|(hash, _)| Some(hash.as_ref()?.value))
        .collect();
    let queues: HashSet<u16> = known.values().map(|(_, queue)| *queue).collect();
    ensure!(
        !offered || !is_tcp || hashes.len() > usize::from(FLOWS) / 2,
        MEND,
        "{FLOWS} flows of {kind:?} have {} different hashes",
        hashes.len()
    );
    ensure!(
        !offered || !is_tcp || session.capabilities.queue_pairs < 2 || queues.len() > 1,
        "the table that leads from a hash to a queue names all of them",
        "{FLOWS} flows of {kind:?} all came to one of {} queues",
        session.capabilities.queue_pairs
    );
    Ok(())
}

/// What has no ports, or no addresses.
fn others<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    // The second half of a datagram: its first bytes are no header.
    let udp = Kind::new(false, 0, Transport::Udp);
    let mut fragment = frame(session, udp, 1);
    put(&mut fragment, ETHERNET + 6, 0x2010);
    put(&mut fragment, ETHERNET + 10, 0);
    let checksum = !sum(fragment.get(ETHERNET..ETHERNET + 20).unwrap_or_default());
    put(&mut fragment, ETHERNET + 10, checksum);
    let hash = one(session, &fragment, "an IPv4 fragment")?.hash;
    ensure!(
        hash.is_none_or(|hash| hash.input == HashInput::Addresses),
        MEND,
        "an IPv4 fragment, which has no ports, came with {hash:?}"
    );
    let mac = session.mac;
    let other = session.frame_to(mac, 100);
    let hash = one(session, &other, "a frame that is not IP")?.hash;
    ensure!(
        hash.is_none(),
        MEND,
        "a frame that is not IP came with {hash:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::toeplitz;

    /// Microsoft's verification suite of the hash.
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
        0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
        0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    #[test]
    fn the_function_gives_the_published_values() {
        // From 199.92.111.2:14230 to 65.69.140.83:4739.
        let addresses = [199, 92, 111, 2, 65, 69, 140, 83];
        let ports = [0x37, 0x96, 0x12, 0x83];
        assert_eq!(toeplitz(&KEY, &addresses), 0xd718_262a);
        let all = [&addresses[..], &ports].concat();
        assert_eq!(toeplitz(&KEY, &all), 0xc626_b0ea);
    }
}
