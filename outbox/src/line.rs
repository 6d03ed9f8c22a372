//! What one connection has to send, and what of it is not over.

use std::collections::VecDeque;
use std::time::Duration;

use pagewire_hal::RegionId;
use pagewire_tcp::{Completion, ConnectionId, Explanation, Outcome, SendOptions};

use crate::completions::{Done, Notice, OutboxError};
use crate::files::Claims;
use crate::message::{Message, Piece};

/// A connection.
#[derive(Default)]
pub(crate) struct Line {
    /// Messages of which not all is accepted, in their order.
    pub(crate) waiting: VecDeque<Waiting>,
    /// Calls of `Stack::send` that are not over.
    calls: VecDeque<Call>,
    /// Messages that are not over; the last of them wait.
    accounts: VecDeque<Account>,
    pub(crate) claims: Claims,
    pub(crate) notice: Notice,
    /// What the program has not asked for yet.
    pub(crate) done: VecDeque<Done>,
    /// The sending direction is to end behind all that waits.
    pub(crate) closing: bool,
    /// It is among those that are looked at.
    pub(crate) is_busy: bool,
}

/// What is not accepted of a message.
pub(crate) struct Waiting {
    pub(crate) pieces: VecDeque<Piece>,
    pub(crate) options: SendOptions,
}

/// A call of `Stack::send`.
struct Call {
    bytes: usize,
    /// Regions that are used up with it.
    ends: Vec<RegionId>,
    /// Messages that end with it.
    finishes: usize,
}

/// A message that is not over.
struct Account {
    tag: u64,
    len: u64,
    delivered: u64,
    copied: u64,
    calls: u64,
    held: Duration,
    outcome: Outcome,
    error: Option<OutboxError>,
    explanation: Option<Explanation>,
}

impl Line {
    /// Whether anything is to be done for it.
    pub(crate) fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.calls.is_empty() || self.closing
    }

    /// Adds a message behind all others.
    pub(crate) fn add(&mut self, message: Message) {
        self.open(message.tag, message.len());
        self.waiting.push_back(Waiting {
            pieces: message.pieces,
            options: message.options,
        });
    }

    /// Opens the account of a message.
    pub(crate) fn open(&mut self, tag: u64, len: u64) {
        self.accounts.push_back(Account {
            tag,
            len,
            delivered: 0,
            copied: 0,
            calls: 0,
            held: Duration::ZERO,
            outcome: Outcome::Delivered,
            error: None,
            explanation: None,
        });
    }

    /// The stack has accepted bytes of the message before all that wait. The regions are used up with
    /// them.
    pub(crate) fn accepted(&mut self, bytes: usize, ends: Vec<RegionId>, copied: u64) {
        self.calls.push_back(Call {
            bytes,
            ends,
            finishes: 0,
        });
        let first = self.accounts.len().checked_sub(self.waiting.len() + 1);
        if let Some(account) = first.and_then(|first| self.accounts.get_mut(first)) {
            account.copied += copied;
        }
    }

    /// All of the first message that waits is accepted.
    pub(crate) fn finish(&mut self, id: ConnectionId) {
        self.waiting.pop_front();
        self.end_message(id);
    }

    /// The account that was opened last ends with what was accepted for it, if anything was.
    pub(crate) fn settle(&mut self, id: ConnectionId, bytes: usize) {
        if bytes == 0 {
            self.accounts.pop_back();
        } else if let Some(account) = self.accounts.back_mut() {
            account.len = bytes as u64;
            self.end_message(id);
        }
    }

    /// The message of the last call ends with it; one without bytes ends with what was before it.
    fn end_message(&mut self, id: ConnectionId) {
        match self.calls.back_mut() {
            Some(call) => call.finishes += 1,
            None => self.close_account(id),
        }
    }

    /// Adds a region to those that are used up with the last call; false: there is none.
    pub(crate) fn end_region(&mut self, region: RegionId) -> bool {
        let last = self.calls.back_mut();
        last.map(|call| call.ends.push(region)).is_some()
    }

    /// A call is over. Returns the regions that are used up with it.
    pub(crate) fn completed(
        &mut self,
        id: ConnectionId,
        completion: &Completion,
        explanation: Option<&Explanation>,
    ) -> Vec<RegionId> {
        let Some(call) = self.calls.pop_front() else {
            return Vec::new();
        };
        if let Some(account) = self.accounts.front_mut() {
            account.calls += 1;
            match completion.outcome {
                Outcome::Delivered => account.delivered += call.bytes as u64,
                Outcome::Aborted => account.outcome = Outcome::Aborted,
            }
            if let Some(explanation) = explanation {
                account.held += explanation.held;
                let whole = account.explanation.get_or_insert_default();
                whole.join(explanation);
            }
        }
        (0..call.finishes).for_each(|_| self.close_account(id));
        call.ends
    }

    /// What waits will never be accepted.
    pub(crate) fn refuse_waiting(&mut self, id: ConnectionId, error: OutboxError) {
        let waiting = self.waiting.len();
        for account in self.accounts.iter_mut().rev().take(waiting) {
            account.outcome = Outcome::Aborted;
            account.error = Some(error);
        }
        while !self.waiting.is_empty() {
            self.finish(id);
        }
    }

    /// Nothing more will be heard of it; whether something was to be.
    pub(crate) fn abandon(&mut self, id: ConnectionId) -> bool {
        let had_any = !self.accounts.is_empty();
        self.waiting.clear();
        self.calls.clear();
        for account in &mut self.accounts {
            account.outcome = Outcome::Aborted;
        }
        while !self.accounts.is_empty() {
            self.close_account(id);
        }
        had_any
    }

    fn close_account(&mut self, id: ConnectionId) {
        let Some(account) = self.accounts.pop_front() else {
            return;
        };
        let done = Done {
            connection: id,
            tag: account.tag,
            len: account.len,
            delivered: account.delivered,
            outcome: account.outcome,
            error: account.error,
            copied: account.copied,
            calls: account.calls,
            held: account.held,
            explanation: account.explanation,
        };
        match &mut self.notice {
            Notice::Poll => self.done.push_back(done),
            Notice::Call(function) => function(done),
            Notice::Queue(completions) => completions.add(done),
        }
    }
}
