//! The ARP cache: which hardware address a neighbour has (RFC 826, RFC 1122 section 2.3.2).

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use pagewire_hal::{Instant, MacAddress};

/// Time between two requests for one address: at most one a second (RFC 1122 section 2.3.2.1).
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);
/// Requests before an address has failed.
const MAX_REQUESTS: u8 = 3;
/// Time for which nothing more is asked after that.
const FAILED_FOR: Duration = Duration::from_secs(3);
/// Age at which an address is asked for again, if it is in use, before it is too old.
const STALE_AFTER: Duration = Duration::from_secs(4 * 60);
/// A known address that was used in this time is in use.
const IN_USE_FOR: Duration = Duration::from_secs(60);
/// Age at which an address is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5 * 60);

/// What is known of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// Frames go to this hardware address.
    Found(MacAddress),
    /// The caller is to broadcast an ARP request now, and to look up again later.
    SendRequest,
    /// A request is under way.
    Wait,
    /// Nobody has answered. After a while the next lookup asks anew.
    Failed,
}

/// An ARP request that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArpRequest {
    /// Whose hardware address is asked for.
    pub ip: Ipv4Addr,
    /// Where the frame goes: [`MacAddress::BROADCAST`], or the address as known so far, which is to be
    /// confirmed (RFC 1122 section 2.3.2.1, unicast poll).
    pub destination: MacAddress,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// `requests` were sent. At `due` the next one is, or the address has failed.
    Incomplete { requests: u8, due: Instant },
    /// The address was confirmed at `since`. Once it is stale and in use it is asked for again:
    /// `requests` times so far, the next time at `due`.
    Known {
        mac: MacAddress,
        since: Instant,
        requests: u8,
        due: Option<Instant>,
    },
    /// Nobody has answered. Nothing is asked before `until`.
    Failed { until: Instant },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    ip: Ipv4Addr,
    last_used: Instant,
    state: State,
}

impl Entry {
    /// An address for which the first request goes out at `now`.
    fn first_request(now: Instant, ip: Ipv4Addr) -> Self {
        Self {
            ip,
            last_used: now,
            state: State::Incomplete {
                requests: 1,
                due: now + REQUEST_INTERVAL,
            },
        }
    }

    /// Gives up an address that has not answered. Returns whether the entry is still of use.
    fn settle(&mut self, now: Instant) -> bool {
        if let State::Incomplete { requests, due } = self.state
            && requests >= MAX_REQUESTS
            && due <= now
        {
            self.state = State::Failed {
                until: due + FAILED_FOR,
            };
        }
        match self.state {
            State::Incomplete { .. } => true,
            State::Known { since, .. } => now.saturating_since(since) < FORGOTTEN_AFTER,
            State::Failed { until } => now < until,
        }
    }

    /// Takes note of a use at `now`: an address in use is asked for once it is stale.
    fn touch(&mut self, now: Instant) {
        self.last_used = now;
        if let State::Known {
            since,
            requests: 0,
            due: due @ None,
            ..
        } = &mut self.state
            && now.saturating_since(*since) >= STALE_AFTER
        {
            *due = Some(now);
        }
    }

    /// Whether a request is to be sent at `now`; it then counts as sent.
    fn take_request(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Incomplete { requests, due } if *requests < MAX_REQUESTS && *due <= now => {
                *requests += 1;
                *due = now + REQUEST_INTERVAL;
                true
            }
            State::Known {
                requests,
                due: due @ Some(_),
                ..
            } if *due <= Some(now) => {
                *requests += 1;
                *due = (*requests < MAX_REQUESTS).then(|| now + REQUEST_INTERVAL);
                true
            }
            _ => false,
        }
    }

    /// When something is to be done for this address.
    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Incomplete { due, .. } => Some(due),
            State::Known { due, .. } => due,
            State::Failed { .. } => None,
        }
    }

    /// Entries of a lower rank make room first. A known address in use comes last: whoever asks
    /// for many that are not there must not drive it out. One that packets wait for comes before
    /// what is known and not used.
    fn rank(&self, now: Instant) -> u8 {
        match self.state {
            State::Failed { .. } => 0,
            State::Known { .. } if now.saturating_since(self.last_used) >= IN_USE_FOR => 1,
            State::Incomplete { .. } => 2,
            State::Known { .. } => 3,
        }
    }
}

/// The hardware addresses of the neighbours, at most [`MAX_ENTRIES`](Self::MAX_ENTRIES).
///
/// [`lookup`](Self::lookup) says what to do for a packet, [`learn`](Self::learn) takes what ARP
/// packets say, and [`poll`](Self::poll) hands out requests as they become due (at
/// [`next_event`](Self::next_event)), so that a waiting address is asked for again and one in
/// use is confirmed before it is too old.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    entries: Vec<Entry>,
}

impl Neighbours {
    /// Addresses that are remembered. If there is one more, the one not used for the longest
    /// time makes room.
    pub const MAX_ENTRIES: usize = 64;

    /// Nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self {
            entries: Vec::with_capacity(Self::MAX_ENTRIES),
        }
    }

    /// What is known of `ip` at `now`; begins to ask if nothing is. A use keeps the entry.
    pub fn lookup(&mut self, now: Instant, ip: Ipv4Addr) -> Lookup {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.ip == ip) else {
            self.make_room(now);
            self.entries.push(Entry::first_request(now, ip));
            return Lookup::SendRequest;
        };
        if !entry.settle(now) {
            *entry = Entry::first_request(now, ip);
            return Lookup::SendRequest;
        }
        entry.touch(now);
        match entry.state {
            State::Known { mac, .. } => Lookup::Found(mac),
            State::Failed { .. } => Lookup::Failed,
            State::Incomplete { .. } => {
                if entry.take_request(now) {
                    Lookup::SendRequest
                } else {
                    Lookup::Wait
                }
            }
        }
    }

    /// Takes the sender's addresses of an ARP packet, request or reply, that came in at `now`.
    /// Returns whether the address was not known before: packets that waited for it can go.
    ///
    /// Only addresses that were looked up are learned. An unsolicited packet updates an entry
    /// (the neighbour may have a new card) but creates none: ARP has no authentication, and
    /// whoever is on the link could fill the cache with addresses that nobody asked for, and
    /// drive out those in use. An address that is needed costs one request.
    ///
    /// A hardware address of all zero, or of a group, is nobody's, and is ignored.
    pub fn learn(&mut self, now: Instant, ip: Ipv4Addr, mac: MacAddress) -> bool {
        if mac.is_multicast() || mac.0 == [0; 6] {
            return false;
        }
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.ip == ip) else {
            return false;
        };
        let news = !matches!(entry.state, State::Known { .. });
        entry.state = State::Known {
            mac,
            since: now,
            requests: 0,
            due: None,
        };
        news
    }

    /// A request that is due at `now`, counted as sent; to be called until it returns `None`.
    /// Forgets what is too old.
    pub fn poll(&mut self, now: Instant) -> Option<ArpRequest> {
        self.entries.retain_mut(|entry| entry.settle(now));
        let entry = self
            .entries
            .iter_mut()
            .find_map(|entry| entry.take_request(now).then_some(entry))?;
        Some(ArpRequest {
            ip: entry.ip,
            destination: match entry.state {
                State::Known { mac, .. } => mac,
                _ => MacAddress::BROADCAST,
            },
        })
    }

    /// When [`poll`](Self::poll) is to be called next: a request is due then, or an address
    /// turns to [`Lookup::Failed`]. `None` if nothing is under way. After `poll` has returned
    /// `None` this is always later than the time it was called with.
    #[must_use]
    pub fn next_event(&self) -> Option<Instant> {
        self.entries.iter().filter_map(Entry::due).min()
    }

    /// Drops the least useful entry if there is no room for another.
    fn make_room(&mut self, now: Instant) {
        if self.entries.len() < Self::MAX_ENTRIES {
            return;
        }
        let victim = self
            .entries
            .iter()
            .enumerate()
            .min_by_key(|(_, entry)| (entry.rank(now), entry.last_used));
        if let Some((index, _)) = victim {
            self.entries.swap_remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{config, seed};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 7]);
    const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 8]);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn request(destination: MacAddress) -> Option<ArpRequest> {
        Some(ArpRequest {
            ip: IP,
            destination,
        })
    }

    #[test]
    fn asks_once_a_second_three_times_and_then_fails_for_three_seconds() {
        let mut cache = Neighbours::new();
        let mut answers = std::vec::Vec::new();
        for millis in (0..7000).step_by(500) {
            answers.push(cache.lookup(at(millis), IP));
        }
        use Lookup::{Failed as F, SendRequest as S, Wait as W};
        assert_eq!(answers, [S, W, S, W, S, W, F, F, F, F, F, F, S, W]);
        // The failure counts from when it was due, not from when somebody looked.
        cache.lookup(at(7000), IP);
        cache.lookup(at(8000), IP);
        assert_eq!(cache.lookup(at(100_000), IP), Lookup::SendRequest);
    }

    #[test]
    fn poll_asks_for_the_waiting_without_a_lookup() {
        let mut cache = Neighbours::new();
        assert_eq!(cache.next_event(), None);
        cache.lookup(at(0), IP);
        assert_eq!(cache.next_event(), Some(at(1000)));
        assert_eq!(cache.poll(at(999)), None);
        assert_eq!(cache.poll(at(1000)), request(MacAddress::BROADCAST));
        assert_eq!(cache.poll(at(1000)), None);
        assert_eq!(cache.poll(at(2000)), request(MacAddress::BROADCAST));
        assert_eq!(cache.next_event(), Some(at(3000)));
        assert_eq!(cache.poll(at(3000)), None);
        assert_eq!(cache.next_event(), None);
        assert_eq!(cache.lookup(at(3000), IP), Lookup::Failed);
        assert_eq!(cache.poll(at(6000)), None);
        assert!(cache.entries.is_empty());
    }

    #[test]
    fn a_reply_is_learned_once_asked_for() {
        let mut cache = Neighbours::new();
        assert!(!cache.learn(at(0), IP, MAC), "nobody asked");
        assert_eq!(cache.lookup(at(0), IP), Lookup::SendRequest);
        assert!(cache.learn(at(1), IP, MAC));
        assert_eq!(cache.lookup(at(2), IP), Lookup::Found(MAC));
        assert_eq!(cache.next_event(), None);
        // An unsolicited packet updates what is there.
        assert!(!cache.learn(at(3), IP, OTHER));
        assert_eq!(cache.lookup(at(4), IP), Lookup::Found(OTHER));
    }

    #[test]
    fn a_late_reply_revives_a_failed_address() {
        let mut cache = Neighbours::new();
        for millis in [0, 1000, 2000, 3000] {
            cache.lookup(at(millis), IP);
        }
        assert_eq!(cache.lookup(at(3001), IP), Lookup::Failed);
        assert!(cache.learn(at(3002), IP, MAC));
        assert_eq!(cache.lookup(at(3003), IP), Lookup::Found(MAC));
    }

    #[test]
    fn addresses_of_groups_and_of_nobody_are_not_learned() {
        let mut cache = Neighbours::new();
        cache.lookup(at(0), IP);
        for mac in [
            MacAddress::BROADCAST,
            MacAddress([0; 6]),
            MacAddress([1, 0, 0x5e, 0, 0, 1]),
        ] {
            assert!(!cache.learn(at(1), IP, mac), "{mac}");
            assert_eq!(cache.lookup(at(2), IP), Lookup::Wait, "{mac}");
        }
    }

    #[test]
    fn an_entry_is_forgotten_after_five_minutes() {
        let mut cache = Neighbours::new();
        cache.lookup(at(0), IP);
        cache.learn(at(0), IP, MAC);
        assert_eq!(cache.lookup(at(299_999), IP), Lookup::Found(MAC));
        assert_eq!(cache.lookup(at(300_000), IP), Lookup::SendRequest);
    }

    #[test]
    fn arp_traffic_keeps_an_entry_young() {
        let mut cache = Neighbours::new();
        cache.lookup(at(0), IP);
        cache.learn(at(0), IP, MAC);
        cache.learn(at(200_000), IP, MAC);
        assert_eq!(cache.lookup(at(400_000), IP), Lookup::Found(MAC));
    }

    #[test]
    fn a_stale_entry_in_use_is_confirmed_by_unicast() {
        let mut cache = Neighbours::new();
        cache.lookup(at(0), IP);
        cache.learn(at(0), IP, MAC);
        assert_eq!(cache.poll(at(240_000)), None, "not in use");
        assert_eq!(cache.lookup(at(240_000), IP), Lookup::Found(MAC));
        assert_eq!(cache.next_event(), Some(at(240_000)));
        assert_eq!(cache.poll(at(240_000)), request(MAC));
        assert_eq!(cache.poll(at(241_000)), request(MAC));
        assert_eq!(cache.lookup(at(241_500), IP), Lookup::Found(MAC));
        assert_eq!(cache.poll(at(242_000)), request(MAC));
        assert_eq!(cache.next_event(), None, "asked often enough");
        assert_eq!(cache.lookup(at(243_000), IP), Lookup::Found(MAC));
        assert_eq!(cache.next_event(), None);
        cache.learn(at(243_500), IP, MAC);
        assert_eq!(cache.lookup(at(540_000), IP), Lookup::Found(MAC));
    }

    #[test]
    fn the_least_used_entry_makes_room() {
        let host = |n: u8| Ipv4Addr::new(10, 0, 1, n);
        let mut cache = Neighbours::new();
        for n in 0..64 {
            cache.lookup(at(u64::from(n)), host(n));
            cache.learn(at(u64::from(n)), host(n), MAC);
        }
        let later = 61_000;
        assert_eq!(cache.lookup(at(later), host(0)), Lookup::Found(MAC));
        assert_eq!(cache.lookup(at(later), host(64)), Lookup::SendRequest);
        assert_eq!(cache.lookup(at(later), host(65)), Lookup::SendRequest);
        assert_eq!(cache.entries.len(), Neighbours::MAX_ENTRIES);
        assert_eq!(cache.lookup(at(later), host(3)), Lookup::Found(MAC));
        // What waits for an answer stays before what is known and not used…
        for n in 100..159 {
            cache.lookup(at(later), host(n));
        }
        assert_eq!(cache.lookup(at(later), host(64)), Lookup::Wait);
        // … but what is in use stays whoever waits.
        for n in 160..=255 {
            cache.lookup(at(later), host(n));
        }
        assert_eq!(cache.entries.len(), Neighbours::MAX_ENTRIES);
        assert_eq!(cache.lookup(at(later), host(0)), Lookup::Found(MAC));
        assert_eq!(cache.lookup(at(later), host(3)), Lookup::Found(MAC));
        assert_eq!(cache.lookup(at(later), host(1)), Lookup::SendRequest);
    }

    proptest! {
        #![proptest_config(config())]

        /// Whatever happens: bounded memory, at most one request a second for an address, and
        /// after `poll` an event that lies in the future.
        #[test]
        fn requests_are_rare_and_time_goes_on(
            events in prop::collection::vec((0u64..90_000, 0u8..70, 0u8..4), 0..300),
        ) {
            let seed = seed();
            let mut cache = Neighbours::new();
            let mut asked = BTreeMap::new();
            let mut now = at(0);
            for (step, host, what) in events {
                let ip = Ipv4Addr::new(10, 0, 0, host % 66);
                // Mostly small steps, some of minutes.
                now = now + Duration::from_millis(if step < 80_000 { step % 700 } else { step });
                let before = cache.entries.iter().any(|entry| entry.ip == ip);
                let request = match what {
                    0 => {
                        cache.learn(now, ip, MAC);
                        let after = cache.entries.iter().any(|entry| entry.ip == ip);
                        prop_assert_eq!(before, after, "seed {}", seed);
                        None
                    }
                    1 => cache.poll(now).map(|request| request.ip),
                    _ => (cache.lookup(now, ip) == Lookup::SendRequest).then_some(ip),
                };
                if let Some(ip) = request {
                    // An entry that was forgotten is asked for anew at once.
                    if let Some(last) = asked.insert(ip, now) && before {
                        let gap = now.saturating_since(last);
                        prop_assert!(gap >= REQUEST_INTERVAL, "{ip} after {gap:?} seed {seed}");
                    }
                }
                prop_assert!(cache.entries.len() <= Neighbours::MAX_ENTRIES, "seed {seed}");
                let mut count = 0;
                let mut probe = cache.clone();
                while probe.poll(now).is_some() {
                    count += 1;
                    prop_assert!(count <= Neighbours::MAX_ENTRIES, "seed {seed}");
                }
                prop_assert!(probe.next_event().is_none_or(|t| t > now), "seed {seed}");
            }
        }
    }
}
