//! Calls that hand over what there is room for and return.

use std::fs::File;
use std::ops::Range;

use pagewire_hal::{DmaMemory, Instant, TxQueue};
use pagewire_tcp::{ConnectionId, SendError, SendOptions, Slice, Stack};

use crate::completions::OutboxError;
use crate::message::Message;
use crate::outbox::Outbox;

/// Each returns how many bytes were accepted, in order from the first: the program goes on from there
/// with the rest. 0 means that there is no room now, that a message waits ([`Outbox::send`]), or that there
/// is nothing to send. What was accepted is one message with a [`Done`](crate::Done) of its own.
impl<M: DmaMemory> Outbox<M> {
    /// Sends a range of a region that the stack knows.
    ///
    /// # Errors
    /// [`OutboxError`]; nothing has been accepted.
    pub fn write<Q: TxQueue>(
        &mut self,
        stack: &mut Stack<Q, M>,
        now: Instant,
        id: ConnectionId,
        slice: Slice,
        tag: u64,
    ) -> Result<usize, OutboxError> {
        self.writev(stack, now, id, &[slice], tag)
    }

    /// Sends ranges of regions that the stack knows, of any length and alignment, in their order.
    ///
    /// # Errors
    /// [`OutboxError`]; nothing has been accepted.
    pub fn writev<Q: TxQueue>(
        &mut self,
        stack: &mut Stack<Q, M>,
        now: Instant,
        id: ConnectionId,
        slices: &[Slice],
        tag: u64,
    ) -> Result<usize, OutboxError> {
        let message = slices.iter().copied().fold(Message::new(), Message::slice);
        self.try_send(stack, now, id, &mut message.tag(tag))
    }

    /// Sends a range of a file, as it is at the moment when the device reads it, and moves the beginning of
    /// `range` behind what was accepted. A part of a window ([`Limits`](crate::Limits)) is mapped anew by
    /// the next call: [`Outbox::send`] is cheaper for what is longer than the stack takes at once.
    ///
    /// # Errors
    /// [`OutboxError`]; nothing has been accepted. That the system does not give another descriptor of the
    /// file ([`File::try_clone`]) is no error of the connection: 0 is returned, and it is logged.
    pub fn sendfile<Q: TxQueue>(
        &mut self,
        stack: &mut Stack<Q, M>,
        now: Instant,
        id: ConnectionId,
        file: &File,
        range: &mut Range<u64>,
        tag: u64,
    ) -> Result<usize, OutboxError> {
        let file = match file.try_clone() {
            Ok(file) => file,
            Err(error) => {
                log::warn!("a file cannot be sent now: {error}");
                return Ok(0);
            }
        };
        let mut message = Message::new().file(file, range.clone()).tag(tag);
        let accepted = self.try_send(stack, now, id, &mut message)?;
        range.start += accepted as u64;
        Ok(accepted)
    }

    /// Sends any message: memory, texts, ranges of files. What is accepted is taken from its beginning, and
    /// it can be given again with the rest.
    ///
    /// # Errors
    /// [`OutboxError`]; nothing has been accepted.
    pub fn try_send<Q: TxQueue>(
        &mut self,
        stack: &mut Stack<Q, M>,
        now: Instant,
        id: ConnectionId,
        message: &mut Message,
    ) -> Result<usize, OutboxError> {
        if stack.state(id).is_none() {
            return Err(SendError::UnknownConnection.into());
        }
        if stack.send_room(id) == 0 {
            return self.no_room(stack, now, id, &message.options);
        }
        self.offer_now(stack, now, id, message)
    }

    /// Whether there is none now, or there will be none.
    fn no_room<Q: TxQueue>(
        &self,
        stack: &mut Stack<Q, M>,
        now: Instant,
        id: ConnectionId,
        options: &SendOptions,
    ) -> Result<usize, OutboxError> {
        Ok(stack.send_with(now, id, &[], 0, options)?)
    }
}
