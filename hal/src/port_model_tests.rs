//! A port against a naive model: frames, completions out of order, acknowledgements, resets and
//! refusals at random, and the bytes that the device reads, at the post and at the completion.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::fake_nic::{FakeNic, FakeQueue, FakeRx, Ring, layout};
use crate::test_support::{HeapMemory, HeapRegion, World, config, pattern, seed};
use crate::{Granule, Loan, Offload, PortPair, PostError, Region, RegionId, release, restart};

#[derive(Clone, Debug)]
enum Step {
    Lend {
        region: usize,
        start: usize,
        len: usize,
    },
    /// A header of so many bytes, then pieces of loans.
    Send {
        header: usize,
        pieces: Vec<(usize, usize, usize)>,
        fate: u8,
    },
    Complete(usize),
    Reclaim,
    Acknowledge(usize, usize),
    GiveBack(usize),
    Release(usize),
    Reset(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0usize..100_000;
    let piece = (n.clone(), n.clone(), n.clone());
    prop_oneof![
        4 => (n.clone(), n.clone(), n.clone())
            .prop_map(|(region, start, len)| Step::Lend { region, start, len }),
        12 => (1usize..129, prop::collection::vec(piece, 0..12), any::<u8>())
            .prop_map(|(header, pieces, fate)| Step::Send { header, pieces, fate }),
        8 => n.clone().prop_map(Step::Complete),
        4 => Just(Step::Reclaim),
        3 => (n.clone(), n.clone()).prop_map(|(l, n)| Step::Acknowledge(l, n)),
        3 => n.clone().prop_map(Step::GiveBack),
        1 => n.prop_map(Step::Release),
        1 => any::<bool>().prop_map(Step::Reset),
    ]
}

/// A frame that is out: what the device must find, and whose bytes they are.
struct Out {
    bytes: Vec<u8>,
    regions: Vec<usize>,
    completed: bool,
}

struct Shared {
    id: RegionId,
    region: Arc<HeapRegion>,
    data: Vec<u8>,
    closing: bool,
    released: bool,
}

struct Model {
    world: World,
    port: TxPort<FakeQueue, HeapMemory>,
    ring: Arc<Mutex<Ring>>,
    shared: Vec<Shared>,
    held: Vec<(usize, Loan)>,
    out: BTreeMap<u32, (FrameId, Out)>,
    posted: u64,
    stamp: u8,
}

fn pick(len: usize, n: usize) -> Option<usize> {
    n.checked_rem(len)
}

/// Pieces in the device's view of the bytes, merged and split: counted fragment by fragment.
fn count(addresses: &[u64], max_len: usize) -> usize {
    let mut count = 0;
    let mut last: Option<(u64, usize)> = None;
    for address in addresses {
        match &mut last {
            Some((next, len)) if *next == *address && *len < max_len => {
                (*next, *len) = (*next + 1, *len + 1);
            }
            _ => {
                count += 1;
                last = Some((address + 1, 1));
            }
        }
    }
    count
}

impl Model {
    fn new(granule: usize, scatter: u64, max_fragments: u16, page: usize) -> Self {
        let world = World::new();
        let mut queue = FakeQueue::new(&world, max_fragments);
        queue.capabilities.max_fragment_len = 100;
        queue.capabilities.max_frame_len = 1 << 16;
        let ring = queue.ring.clone();
        ring.lock().unwrap().capacity = 6;
        let layout = PoolLayout {
            page: Granule::from_bytes(page).unwrap(),
            ..layout()
        };
        let mut port = TxPort::new(&mut FakeNic::new(&world, 1), queue, &layout).unwrap();
        let mut shared = Vec::new();
        for (salt, len) in [(1, 300), (2, 500), (3, 77)] {
            let data = pattern(len, salt);
            let scattered = |i: usize| scatter >> ((i + usize::from(salt)) % 64) & 1 == 1;
            let region = world.region(granule, usize::from(salt), &data, scattered);
            let id = port.ledger_mut().register(region.clone()).unwrap();
            shared.push(Shared {
                id,
                region,
                data,
                closing: false,
                released: false,
            });
        }
        Self {
            world,
            port,
            ring,
            shared,
            held: Vec::new(),
            out: BTreeMap::new(),
            posted: 0,
            stamp: 0,
        }
    }

    fn send(
        &mut self,
        header: usize,
        pieces: &[(usize, usize, usize)],
        fate: u8,
    ) -> Result<(), TestCaseError> {
        let seed = seed();
        let Some(mut buffer) = self.port.buffer(header) else {
            return Ok(());
        };
        self.stamp = self.stamp.wrapping_add(1);
        let mut bytes = pattern(header, self.stamp);
        self.port.bytes_mut(&mut buffer)[..header].copy_from_slice(&bytes);
        let first = self.port.pool.run(&buffer, header).unwrap().0.address.0;
        let mut addresses: Vec<u64> = (first..first + header as u64).collect();
        let mut regions = Vec::new();
        let refuse = (fate < 16).then_some(PostError::Full);
        self.ring.lock().unwrap().refuse = refuse;
        let full = self.ring.lock().unwrap().capacity <= self.out.len();
        let max = self.port.max_fragments();
        let mut frame = self.port.frame(buffer, header);
        let mut empty = false;
        for (loan, start, len) in pieces {
            let Some(index) = pick(self.held.len(), *loan) else {
                continue;
            };
            let (region, loan) = &self.held[index];
            let range = loan.range();
            let start = range.start + start % (range.len() + 1);
            let len = len % (range.end - start + 1);
            frame.attach(loan, start, len);
            empty |= len == 0;
            bytes.extend(&self.shared[*region].data[start..start + len]);
            let view = self.shared[*region].region.translation().runs(start, len);
            addresses.extend(view.flat_map(|r| r.address.0..r.address.0 + r.len as u64));
            regions.push(*region);
        }
        if fate >= 240 {
            drop(frame);
            self.ring.lock().unwrap().refuse = None;
            return Ok(());
        }
        let posted = frame.post(Offload::NONE);
        let reached = self.ring.lock().unwrap().refuse.take().is_none();
        let pieces = count(&addresses, 100);
        let short = bytes.len() < 14;
        if empty || pieces > max {
            let refused = matches!(posted, Err(PortError::Lend(_) | PortError::TooManyPieces));
            prop_assert!(refused, "seed {}: {:?} of {}", seed, posted, pieces);
        } else if short || (reached && refuse.is_some()) || full {
            prop_assert!(
                matches!(posted, Err(PortError::Post(_))),
                "seed {}: {:?}",
                seed,
                posted
            );
        } else {
            prop_assert!(posted.is_ok(), "seed {}: {:?}", seed, posted);
        }
        if let Ok(id) = posted {
            self.posted += 1;
            let ring = self.ring.lock().unwrap();
            let last = ring.posted.last().unwrap();
            prop_assert_eq!(last.bytes.as_ref(), Some(&bytes), "seed {}", seed);
            prop_assert_eq!(last.fragments.len(), pieces, "seed {}", seed);
            let out = Out {
                bytes,
                regions,
                completed: false,
            };
            let before = self.out.insert(last.token.0, (id, out));
            prop_assert!(before.is_none(), "seed {}: a token is out twice", seed);
        }
        Ok(())
    }

    fn reclaim(&mut self) -> Result<(), TestCaseError> {
        let mut done = Vec::new();
        let count = self.port.reclaim(&mut |id| done.push(id)).unwrap();
        prop_assert_eq!(count, done.len(), "seed {}", seed());
        let completed: Vec<_> = self
            .out
            .iter()
            .filter(|(_, (_, o))| o.completed)
            .map(|(_, (id, _))| *id)
            .collect();
        prop_assert_eq!(done.len(), completed.len(), "seed {}", seed());
        prop_assert!(
            completed.iter().all(|id| done.contains(id)),
            "seed {}",
            seed()
        );
        self.out.retain(|_, (_, out)| !out.completed);
        Ok(())
    }

    fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Lend { region, start, len } => {
                let index = region % self.shared.len();
                let shared = &self.shared[index];
                let start = start % shared.data.len();
                let len = 1 + len % (shared.data.len() - start);
                let lent = self.port.ledger_mut().lend(shared.id, start, len);
                prop_assert_eq!(lent.is_err(), shared.closing, "seed {}", seed());
                self.held.extend(lent.ok().map(|loan| (index, loan)));
            }
            Step::Send {
                header,
                pieces,
                fate,
            } => self.send(header, &pieces, fate)?,
            Step::Complete(n) => {
                let mut ring = self.ring.lock().unwrap();
                if let Some(index) = pick(ring.posted.len(), n) {
                    let posted = ring.complete(index);
                    let (_, out) = self.out.get_mut(&posted.token.0).unwrap();
                    out.completed = true;
                    // Until now nobody has changed or freed what the device may read.
                    let read = self.world.read(&posted.fragments);
                    prop_assert_eq!(read.as_ref(), Some(&out.bytes), "seed {}", seed());
                }
            }
            Step::Reclaim => self.reclaim()?,
            Step::Acknowledge(n, len) => {
                if let Some(index) = pick(self.held.len(), n) {
                    let loan = &mut self.held[index].1;
                    let len = len % (loan.len() + 2);
                    self.port.ledger_mut().trim_front(loan, len);
                }
            }
            Step::GiveBack(n) => {
                if let Some(index) = pick(self.held.len(), n) {
                    let (_, loan) = self.held.swap_remove(index);
                    self.port.ledger_mut().give_back(loan);
                }
            }
            Step::Release(n) => {
                let index = n % self.shared.len();
                let shared = &mut self.shared[index];
                let released = self.port.ledger_mut().release(shared.id).is_ok();
                prop_assert_eq!(released, !shared.closing, "seed {}", seed());
                shared.closing = true;
            }
            Step::Reset(start_again) => {
                let mut nic = FakeNic::new(&self.world, 1);
                let pairs = &mut [PortPair {
                    tx: &mut self.port,
                    rx: &mut FakeRx,
                }];
                let reset = if start_again { restart } else { release };
                reset(&mut nic, pairs).unwrap();
                self.out.clear();
            }
        }
        Ok(())
    }

    fn agree(&mut self) -> Result<(), TestCaseError> {
        let seed = seed();
        while let Some((id, share)) = self.port.ledger_mut().take_released() {
            let shared = self
                .shared
                .iter_mut()
                .find(|shared| shared.id == id)
                .unwrap();
            prop_assert!(!shared.released, "seed {}: released twice", seed);
            prop_assert_eq!(share.base(), shared.region.base(), "seed {}", seed);
            shared.released = true;
        }
        for (index, shared) in self.shared.iter().enumerate() {
            let lent = self.held.iter().any(|(region, _)| *region == index)
                || self
                    .out
                    .values()
                    .any(|(_, out)| out.regions.contains(&index));
            prop_assert_eq!(shared.released, shared.closing && !lent, "seed {}", seed);
        }
        let pieces: usize = self.out.values().map(|(_, out)| out.regions.len()).sum();
        let loans = (self.held.len() + pieces) as u64;
        prop_assert_eq!(self.port.ledger().counters().loans, loans, "seed {}", seed);
        prop_assert_eq!(self.port.outstanding(), self.out.len(), "seed {}", seed);
        let (small, large) = self.port.vacant_buffers();
        prop_assert_eq!(small + large + self.out.len(), 12, "seed {}", seed);
        prop_assert!(
            self.out.values().all(|(id, _)| self.port.in_flight(*id)),
            "seed {}",
            seed
        );
        let counters = self.port.counters();
        prop_assert_eq!(
            (counters.frames, counters.stray_tokens),
            (self.posted, 0),
            "seed {}",
            seed
        );
        Ok(())
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_port_agrees_with_a_naive_one(
        log2 in 4u32..9, scatter in any::<u64>(), max_fragments in 1u16..40,
        // Pieces of one page, and of many: a frame's books have room for eight, and then for more.
        page in prop_oneof![Just(16usize), Just(64), Just(4096)],
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut model = Model::new(1 << log2, scatter, max_fragments, page);
        for step in steps {
            model.apply(step)?;
            model.agree()?;
        }
        let Model { world, port, shared, held, out, .. } = model;
        drop(port);
        prop_assert_eq!(world.freed(), if out.is_empty() { 2 } else { 0 }, "seed {}", seed());
        for (index, shared) in shared.iter().enumerate() {
            let lent = held.iter().any(|(region, _)| *region == index)
                || out.values().any(|(_, out)| out.regions.contains(&index));
            let shares = Arc::strong_count(&shared.region);
            prop_assert_eq!(shares, 1 + usize::from(lent), "seed {}", seed());
        }
    }
}
