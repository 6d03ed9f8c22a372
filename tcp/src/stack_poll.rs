//! What happens at a poll: completions, timers, transmission, one doorbell.

use core::cmp::Reverse;
use core::time::Duration;

use pagewire_hal::{DmaMemory, Instant, MacAddress, QueueError, TxQueue};

use crate::connection::{Connection, State};
use crate::connection_output::{Output, Turn};
use crate::headers::{Envelope, Headers};
use crate::neighbour::{ArpRequest, Lookup};
use crate::send_buffer::SendBuffer;
use crate::stack::{PendingReset, Stack};
use crate::stats::ConnectionStats;
use crate::transmit::{Outgoing, transmit};
use crate::wire::{ArpOperation, ArpPacket, ETHERTYPE_ARP, EthernetHeader};

/// Segments that a connection may post before it is the next one's turn. A request for
/// segmentation counts as the segments that it makes, so that turns are fair in bytes; the last
/// one may go beyond.
const QUOTA: usize = 64;

/// When to poll again if something waits for the device, for callers that get no interrupt, or may
/// have to be moved out of the way of a writer, who tells nobody.
const RETRY: Duration = Duration::from_millis(1);

impl<Q: TxQueue, M: DmaMemory> Stack<Q, M> {
    /// Takes completions back, does what timers ask for, sends what may be sent, and rings the
    /// doorbell once. Returns when to call again at the latest, if nothing is received or
    /// completes before; `None`: nothing is waited for.
    ///
    /// # Errors
    /// [`QueueError`] of the queue: the device is to be reset. Timers have been served, and no
    /// doorbell was rung.
    pub fn poll(&mut self, now: Instant) -> Result<Option<Instant>, QueueError> {
        let reclaimed = self.port.reclaim(&mut |_| {});
        self.move_wanted_away();
        self.run_timers(now);
        self.run_neighbours(now);
        self.settle(now);
        let _ = reclaimed?;
        self.send_resets(now);
        self.transmit_ready(now);
        self.port.doorbell();
        Ok(self.next_call(now))
    }

    fn next_call(&mut self, now: Instant) -> Option<Instant> {
        let waits = !self.ready.is_empty()
            || !self.stalled.is_empty()
            || !self.draining.is_empty()
            || !self.resets.is_empty()
            // Whoever begins to wait meanwhile, to write to what can be moved, waits for a poll.
            || self.pool.is_some() && self.shares.may_move()
            // Frames of connections that were removed: their pages come back at a poll only.
            || self.port.outstanding() > 0;
        let retry = waits.then(|| now + RETRY);
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        [retry, timer, self.neighbours.next_event()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Puts a connection into the queue for transmission.
    pub(crate) fn enqueue(&mut self, index: u32) {
        let Some(connection) = self.at(index) else {
            return;
        };
        if !connection.queued {
            connection.queued = true;
            self.ready.push_back(index);
        }
    }

    /// To be called after anything that may have moved a timer, released bytes or ended a
    /// connection.
    pub(crate) fn after_change(&mut self, index: u32) {
        let place = self.places.get_mut(index as usize);
        let Some(connection) = place.and_then(|place| place.connection.as_deref_mut()) else {
            return;
        };
        let held = connection.buffer.held();
        self.shares.note(&mut connection.noted, held);
        let drains = connection.flight.is_draining() && !connection.listed_draining;
        connection.listed_draining |= drains;
        let due = connection.timer.deadline();
        // A later deadline needs no entry: the earlier one will look at it.
        let schedule = due.filter(|due| connection.scheduled.is_none_or(|at| at > *due));
        if schedule.is_some() {
            connection.scheduled = schedule;
        }
        let over = connection.state == State::Closed;
        if drains {
            self.draining.push_back(index);
        }
        if let Some(at) = schedule {
            self.timers.push(Reverse((at, index)));
        }
        if over {
            self.after_end(index);
        }
    }

    /// A connection is over: its four-tuple is free; one that the program never saw goes.
    fn after_end(&mut self, index: u32) {
        let Some(connection) = self
            .places
            .get_mut(index as usize)
            .and_then(|p| p.connection.take())
        else {
            return;
        };
        self.unbind(&connection, index);
        let port = connection.endpoints.local.port();
        let id = self.id_of(index);
        let (pending, drains) = (connection.pending, connection.listed_draining);
        if let Some(place) = self.places.get_mut(index as usize) {
            place.connection = Some(connection);
        }
        if pending {
            if let Some(listener) = self.listeners.get_mut(&port) {
                listener.waiting = listener.waiting.saturating_sub(1);
                listener.ready.retain(|ready| Some(*ready) != id);
            }
            if drains {
                self.draining.retain(|drained| *drained != index);
            }
            self.forget(index);
        }
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some(Reverse((at, index))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            let Some(connection) = self
                .places
                .get_mut(index as usize)
                .and_then(|place| place.connection.as_deref_mut())
                .filter(|connection| connection.scheduled == Some(at))
            else {
                continue;
            };
            connection.scheduled = None;
            connection.on_timer(now, &mut self.port, &self.config);
            self.enqueue(index);
            self.after_change(index);
        }
    }

    /// Sends ARP requests that are due; then looks whether waiting connections must give up.
    fn run_neighbours(&mut self, now: Instant) {
        if self.neighbours.next_event().is_none_or(|at| at > now) {
            return;
        }
        while let Some(ArpRequest { ip, destination }) = self.neighbours.poll(now) {
            self.send_arp_request(ip, destination);
        }
        self.wake_awaiting();
    }

    /// Lets all connections that wait for ARP look again.
    pub(crate) fn wake_awaiting(&mut self) {
        while let Some(index) = self.awaiting.pop() {
            if let Some(connection) = self.at(index) {
                connection.awaits_neighbour = false;
            }
            self.enqueue(index);
        }
    }

    /// Frames that have completed after their acknowledgment.
    pub(crate) fn settle(&mut self, now: Instant) {
        for _ in 0..self.draining.len() {
            let Some(index) = self.draining.pop_front() else {
                return;
            };
            let Some(connection) = self
                .places
                .get_mut(index as usize)
                .and_then(|place| place.connection.as_deref_mut())
                .filter(|connection| connection.listed_draining)
            else {
                continue;
            };
            connection.settle(now, &self.port);
            connection.listed_draining = connection.flight.is_draining();
            if connection.listed_draining {
                self.draining.push_back(index);
            }
        }
    }

    fn transmit_ready(&mut self, now: Instant) {
        self.ready.append(&mut self.stalled);
        while let Some(index) = self.ready.pop_front() {
            let Some(connection) = self.at(index) else {
                continue;
            };
            connection.queued = false;
            let turn = self.transmit_connection(now, index);
            self.after_change(index);
            let Some(connection) = self.at(index).filter(|c| c.state != State::Closed) else {
                continue;
            };
            match turn {
                Turn::Done => {}
                Turn::More => self.enqueue(index),
                Turn::PutOff | Turn::Refused | Turn::OverBudget => {
                    connection.queued = true;
                    self.stalled.push_back(index);
                }
                Turn::Full => {
                    // At the end, so that the next poll begins with another one.
                    self.enqueue(index);
                    return;
                }
            }
        }
    }

    /// One connection's turn.
    fn transmit_connection(&mut self, now: Instant, index: u32) -> Turn {
        let Some(next_hop) = self.at(index).map(|c| c.endpoints.next_hop) else {
            return Turn::Done;
        };
        let looked_up = self.neighbours.lookup(now, next_hop);
        if looked_up == Lookup::SendRequest {
            self.send_arp_request(next_hop, MacAddress::BROADCAST);
        }
        let Self {
            places,
            port,
            config,
            limits,
            device,
            identification,
            awaiting,
            ..
        } = self;
        let Some(connection) = places
            .get_mut(index as usize)
            .and_then(|place| place.connection.as_deref_mut())
        else {
            return Turn::Done;
        };
        match looked_up {
            Lookup::Found(next_hop) => connection.transmit(&mut Output {
                now,
                config,
                limits,
                device,
                port,
                next_hop,
                identification,
                quota: QUOTA,
                prepared: false,
            }),
            Lookup::SendRequest | Lookup::Wait => {
                await_neighbour(connection, index, awaiting);
                // Not ARP's word alone: more silent neighbours than its cache holds drive each
                // other out, and would wait for ever.
                connection.set_timer(now, true);
                Turn::Done
            }
            Lookup::Failed => {
                connection.on_unreachable(now, port);
                Turn::Done
            }
        }
    }

    fn send_resets(&mut self, now: Instant) {
        let nothing = SendBuffer::new();
        while let Some(reset) = self.resets.pop_front() {
            let Some(next_hop) = reset.mac.or_else(|| self.known_neighbour(now, &reset)) else {
                self.stats.replies_lost += 1;
                continue;
            };
            let envelope = Envelope {
                source_mac: self.config.mac,
                destination_mac: next_hop,
                source: self.config.address,
                destination: reset.destination,
            };
            let out = Outgoing {
                device: &self.device,
                headers: &Headers::new(&envelope, &reset.header, false),
                identification: self.identification,
                payload: nothing.parts(0, 0),
                len: 0,
                offload: self.device.offload(),
                segments: 1,
                has_copies: false,
            };
            let stats: &mut ConnectionStats = &mut self.stats.connections;
            if transmit(&mut self.port, &out, stats).is_err() {
                self.resets.push_front(reset);
                return;
            }
            self.identification = self.identification.wrapping_add(1);
            self.stats.resets_sent += 1;
        }
    }

    /// The peer of a connection that was aborted: if ARP has forgotten it, it learns of the
    /// abort when it sends its next segment.
    fn known_neighbour(&mut self, now: Instant, reset: &PendingReset) -> Option<MacAddress> {
        let next_hop = self.route(reset.destination)?;
        match self.neighbours.lookup(now, next_hop) {
            Lookup::Found(mac) => Some(mac),
            _ => None,
        }
    }

    fn send_arp_request(&mut self, ip: core::net::Ipv4Addr, destination: MacAddress) {
        self.send_arp(
            destination,
            &ArpPacket {
                operation: ArpOperation::Request,
                sender_mac: self.config.mac,
                sender_ip: self.config.address,
                target_mac: MacAddress([0; 6]),
                target_ip: ip,
            },
        );
    }

    /// Posts an ARP packet; if there is no room it is lost, as it might be on the wire.
    pub(crate) fn send_arp(&mut self, destination: MacAddress, packet: &ArpPacket) {
        if self.post_arp(destination, packet).is_some() {
            self.stats.arp_sent += 1;
        } else {
            self.stats.replies_lost += 1;
        }
    }

    fn post_arp(&mut self, destination: MacAddress, packet: &ArpPacket) -> Option<()> {
        let len = EthernetHeader::LEN + ArpPacket::LEN;
        let padded = len.max(self.port.capabilities().min_frame_len as usize);
        let mut buffer = self.port.buffer(padded)?;
        let header = EthernetHeader {
            destination,
            source: self.config.mac,
            ethertype: ETHERTYPE_ARP,
        };
        let bytes = self.port.bytes_mut(&mut buffer);
        let written = bytes.get_mut(..padded).and_then(|frame| {
            frame.fill(0);
            header.emit(frame)?;
            packet.emit(frame.get_mut(EthernetHeader::LEN..)?)
        });
        if written.is_none() {
            self.port.put_buffer(buffer);
            return None;
        }
        let frame = self.port.frame(buffer, padded);
        frame.post(pagewire_hal::Offload::NONE).ok().map(|_| ())
    }
}

/// Notes that a connection is to be woken when ARP knows more.
fn await_neighbour(connection: &mut Connection, index: u32, awaiting: &mut alloc::vec::Vec<u32>) {
    if !connection.awaits_neighbour {
        connection.awaits_neighbour = true;
        awaiting.push(index);
    }
}
