//! The control queue, and what it sets: the receive filter and the number of pairs.

use super::bits::feature;
use super::hostile::Answer;
use super::queue::{Queue, Work};
use super::ring::{Chain, Used, unreachable};

/// Classes, and commands in them.
const RECEIVE: u8 = 0;
const PROMISCUOUS: u8 = 0;
const ALL_MULTICAST: u8 = 1;
const MAC: u8 = 1;
const TABLE_SET: u8 = 0;
const ADDRESS_SET: u8 = 1;
const MULTIQUEUE: u8 = 4;
const PAIRS_SET: u8 = 0;

const OK: u8 = 0;
const ERROR: u8 = 1;
/// Addresses in a filter table; with more all are accepted. (QEMU's limit is 64 as well.)
const TABLE: usize = 64;

/// Which frames are received.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    mac: [u8; 6],
    promiscuous: bool,
    all_multicast: bool,
    addresses: Vec<[u8; 6]>,
    overflow: bool,
}

impl Filter {
    /// All frames, until the driver says otherwise. (The specification names no initial state;
    /// this is QEMU's.)
    pub(super) fn new(mac: [u8; 6]) -> Self {
        Self {
            mac,
            promiscuous: true,
            all_multicast: false,
            addresses: Vec::new(),
            overflow: false,
        }
    }

    pub(super) fn mac(&self) -> [u8; 6] {
        self.mac
    }

    pub(super) fn wants(&self, frame: &[u8]) -> bool {
        let Some(target) = frame.first_chunk::<6>() else {
            return false;
        };
        let is_multicast = target[0] & 1 != 0;
        self.promiscuous
            || self.overflow
            || *target == [0xff; 6]
            || *target == self.mac
            || is_multicast && self.all_multicast
            || self.addresses.contains(target)
    }

    /// Two tables, unicast and multicast: a count of 32 bits and the addresses.
    fn set_table(&mut self, data: &[u8]) -> Option<()> {
        let mut rest = data;
        let mut addresses = Vec::new();
        for _ in 0..2 {
            let (count, behind) = rest.split_first_chunk::<4>()?;
            let len = (u32::from_le_bytes(*count) as usize).checked_mul(6)?;
            let (table, behind) = behind.split_at_checked(len)?;
            addresses.extend_from_slice(table.as_chunks::<6>().0);
            rest = behind;
        }
        self.overflow = addresses.len() > TABLE;
        addresses.truncate(TABLE);
        self.addresses = addresses;
        rest.is_empty().then_some(())
    }
}

/// What commands change.
pub(super) struct Settings<'a> {
    pub(super) filter: &'a mut Filter,
    pub(super) pairs: &'a mut u16,
    pub(super) most_pairs: u16,
}

/// Executes what was fetched.
pub(super) fn execute(queue: &mut Queue, settings: &mut Settings<'_>, work: &mut Work<'_>) -> bool {
    let mut any = false;
    while let Some(chain) = queue.stock.pop_front() {
        any = true;
        let answer = match command(&chain, settings, work) {
            Ok(()) => {
                work.counters.commands += 1;
                OK
            }
            Err(text) => {
                work.report(queue.index, &text);
                ERROR
            }
        };
        let answer = match &mut work.liar {
            Some(liar) => liar.answer(answer),
            None => Answer::Given(answer),
        };
        if answer == Answer::Lost {
            continue;
        }
        let Some(element) = chain.writable.first() else {
            queue.refuse("a command without room for its answer", work);
            return true;
        };
        if let Answer::Given(answer) = answer
            && let Err(fault) = work.bus.write(element.address, &[answer])
        {
            queue.refuse(&unreachable("answer", fault), work);
            return true;
        }
        let used = Used {
            id: chain.id,
            slots: chain.slots,
            len: 1,
            room: chain.capacity() as u32,
        };
        queue.finish(used, work);
    }
    any
}

fn command(chain: &Chain, settings: &mut Settings<'_>, work: &mut Work<'_>) -> Result<(), String> {
    let mut bytes = Vec::new();
    for element in &chain.readable {
        work.bus
            .append(element.address, element.len as usize, &mut bytes)
            .map_err(|fault| unreachable("command", fault))?;
    }
    let [class, number, ref data @ ..] = *bytes.as_slice() else {
        return Err(format!("a command of {} bytes", bytes.len()));
    };
    let needs = match (class, number) {
        (RECEIVE, _) | (MAC, TABLE_SET) => feature::CTRL_RX,
        (MAC, _) => feature::CTRL_MAC_ADDR,
        (MULTIQUEUE, _) => feature::MQ,
        _ => return Err(format!("command {number} of class {class}")),
    };
    if !work.has(needs) {
        return Err(format!(
            "command {number} of class {class} was not negotiated"
        ));
    }
    let bad = || {
        format!(
            "command {number} of class {class} with {} bytes",
            data.len()
        )
    };
    match (class, number, data) {
        (RECEIVE, PROMISCUOUS, [on @ (0 | 1)]) => settings.filter.promiscuous = *on == 1,
        (RECEIVE, ALL_MULTICAST, [on @ (0 | 1)]) => settings.filter.all_multicast = *on == 1,
        (MAC, TABLE_SET, data) => settings.filter.set_table(data).ok_or_else(bad)?,
        (MAC, ADDRESS_SET, data) => {
            settings.filter.mac = data.try_into().map_err(|_| bad())?;
        }
        (MULTIQUEUE, PAIRS_SET, [low, high]) => {
            let pairs = u16::from_le_bytes([*low, *high]);
            if pairs == 0 || pairs > settings.most_pairs {
                return Err(format!(
                    "{pairs} pairs of queues of {}",
                    settings.most_pairs
                ));
            }
            *settings.pairs = pairs;
        }
        _ => return Err(bad()),
    }
    Ok(())
}
