//! The port and the ledger, with loans, frames, completions and resets in all orders.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pagewire::hal::{
    FrameId, Granule, Instant, LendError, Loan, Nic, NicError, Offload, PoolLayout, PortError,
    PortPair, PostError, QueueError, RegionId, TxPort, release, restart,
};

use crate::device::{Device, Queue, Receive};
use crate::machine::{Machine, PoolMemory, Power, Stage};
use crate::page_books::{
    Action, BUFFERS, Books, Frame, HEADER, PAGE, Part, REGIONS, Setup, Shape, TRIM,
};
use crate::search::{World, same};

/// A port on the machine, and the books beside it.
pub(crate) struct Pages {
    setup: Setup,
    machine: Machine,
    device: Device,
    port: TxPort<Queue, PoolMemory>,
    ids: Vec<RegionId>,
    loans: Vec<Loan>,
    books: Books,
    /// Regions that the ledger has handed out.
    handed_out: [u32; 2],
}

impl Pages {
    fn build(&mut self, shape: Shape, post: bool) -> Result<Option<FrameId>, PortError> {
        let Some(mut buffer) = self.port.buffer(HEADER) else {
            return Err(PortError::Post(PostError::Full));
        };
        self.port.bytes_mut(&mut buffer)[..HEADER].fill(self.books.posted as u8);
        let mut frame = self.port.frame(buffer, HEADER);
        match shape {
            Shape::Bare => {}
            Shape::Whole(loan) => {
                let loan = &self.loans[loan];
                frame.attach(loan, loan.range().start, loan.len());
            }
            Shape::Gather(a, b) => {
                let (a, b) = (&self.loans[a], &self.loans[b]);
                let tail = a.len().min(TRIM);
                frame.attach(a, a.range().end - tail, tail);
                frame.attach(b, b.range().start, b.len());
            }
        }
        if post {
            frame.post(Offload::NONE).map(Some)
        } else {
            Ok(None)
        }
    }

    fn post(&mut self, shape: Shape) -> Result<(), String> {
        let power = self.machine.lock().power;
        let parts = self.books.parts(shape).ok_or("no such loans")?;
        let expected = if self.books.interrupted || power != Power::Running {
            Err(PortError::Post(PostError::Down))
        } else if self.books.frames.len() >= self.setup.frames {
            Err(PortError::Post(PostError::Full))
        } else {
            Ok(())
        };
        let posted = self.build(shape, true);
        same!(posted.map(|_| ()), expected, "post");
        if let Ok(Some(id)) = posted {
            self.books.posted += 1;
            let state = self.machine.lock();
            let token = state.posted.last().ok_or("nothing was posted")?.token;
            self.books.frames.push(Frame {
                id,
                token,
                parts,
                stage: Stage::Posted,
            });
        }
        Ok(())
    }

    fn lend(&mut self, region: usize) -> Result<(), String> {
        let len = REGIONS[region].1;
        let lent = self.port.ledger_mut().lend(self.ids[region], 0, len);
        let expected = match self.books.closing[region] {
            true => Err(LendError::UnknownRegion),
            false => Ok(()),
        };
        same!(lent.as_ref().map(|_| ()).map_err(|e| *e), expected, "lend");
        if let Ok(loan) = lent {
            self.loans.push(loan);
            self.books.loans.push((region, 0..len));
        }
        Ok(())
    }

    fn again(&mut self, place: usize) -> Result<(), String> {
        let loan = &self.loans[place];
        let (start, len) = (loan.range().start, loan.len());
        let again = self.port.ledger_mut().lend_again(loan, start, len);
        let again = again.map_err(|error| format!("lend again: {error}"))?;
        self.loans.push(again);
        self.books.loans.push(self.books.loans[place].clone());
        Ok(())
    }

    fn complete(&mut self, nth: usize) {
        self.machine.lock().complete(nth);
        let frames = self.books.frames.iter_mut();
        if let Some(frame) = frames.filter(|f| f.stage == Stage::Rung).nth(nth) {
            frame.stage = Stage::Done;
            self.books.done.push(frame.id);
        }
    }

    fn reclaim(&mut self) -> Result<(), String> {
        let power = self.machine.lock().power;
        let mut found = Vec::new();
        let result = self.port.reclaim(&mut |id| found.push(id));
        if self.books.interrupted || !matches!(power, Power::Running | Power::Stopping) {
            same!(result, Err(QueueError::Down), "reclaim");
            same!(found.len(), 0, "frames handed back by a port that is down");
            return Ok(());
        }
        same!(found, self.books.done, "reclaimed");
        same!(result, Ok(found.len()), "count of reclaimed frames");
        self.books.done.clear();
        self.books.end_frames(|frame| frame.stage == Stage::Done);
        Ok(())
    }

    /// The callback unwinds at the first frame.
    fn unwind(&mut self) -> Result<(), String> {
        let mut first = None;
        let port = &mut self.port;
        let result = catch_unwind(AssertUnwindSafe(|| {
            port.reclaim(&mut |id| {
                first = Some(id);
                resume_unwind(Box::new(()));
            })
        }));
        same!(result.is_err(), true, "the callback unwinds");
        same!(first, self.books.done.first().copied(), "the first frame");
        self.books.done.remove(0);
        self.books.end_frames(|frame| Some(frame.id) == first);
        self.books.interrupted = true;
        self.books.strays_to_come = 1;
        Ok(())
    }

    fn reset(&mut self, start_again: bool, initialises: bool) -> Result<(), String> {
        self.machine.lock().initialises = initialises;
        let power = self.machine.lock().power;
        let pairs = &mut [PortPair {
            tx: &mut self.port,
            rx: &mut Receive,
        }];
        let result = match start_again {
            true => restart(&mut self.device, pairs),
            false => release(&mut self.device, pairs),
        };
        if power != Power::Quiet {
            same!(result, Err(NicError::WrongPhase), "a reset out of phase");
            return Ok(());
        }
        same!(result.is_ok(), initialises, "reset");
        self.books.done.clear();
        self.books.end_frames(|_| true);
        self.books.strays += std::mem::take(&mut self.books.strays_to_come);
        self.books.interrupted &= result.is_err();
        Ok(())
    }

    /// Compares all that can be seen.
    fn agree(&mut self) -> Result<(), String> {
        while let Some((id, share)) = self.port.ledger_mut().take_released() {
            let region = self.ids.iter().position(|known| *known == id);
            let region = region.ok_or("a region that was never registered")?;
            self.handed_out[region] += 1;
            drop(share);
        }
        let books = &mut self.books;
        for region in 0..self.setup.regions {
            let expected = u32::from(books.free(region));
            same!(
                self.handed_out[region],
                expected,
                "region {region} released"
            );
            let drops = self.machine.lock().drops[region];
            same!(drops, expected, "region {region} dropped");
        }
        books.peak = books.peak.max(books.pinned());
        let counters = self.port.ledger().counters();
        same!(counters.loans, books.holders().count() as u64, "loans");
        same!(counters.pinned_pages, books.pinned() as u64, "pinned pages");
        same!(counters.pinned_pages_peak, books.peak as u64, "peak");
        same!(counters.strays, 0, "stray loans");
        same!(self.port.counters().frames, books.posted, "frames counted");
        same!(self.port.counters().stray_tokens, books.strays, "strays");
        same!(self.port.outstanding(), books.frames.len(), "outstanding");
        let (small, large) = self.port.vacant_buffers();
        let vacant = BUFFERS - books.frames.len();
        same!((small, large), (vacant, 0), "vacant buffers");
        for frame in &books.frames {
            same!(self.port.in_flight(frame.id), true, "{:?} in flight", frame);
        }
        for id in &books.over {
            same!(self.port.in_flight(*id), false, "{id:?} in flight");
        }
        for (loan, (region, range)) in self.loans.iter().zip(&books.loans) {
            same!(loan.range(), *range, "range of a loan");
            let bytes = self.port.ledger().bytes(loan).map_err(|e| e.to_string())?;
            let start = REGIONS[*region].0 + range.start;
            let expected = crate::machine::bytes(*region, start, range.len());
            same!(bytes, expected, "bytes of a loan");
        }
        let mut state = self.machine.lock();
        let open = books.frames.len() + books.strays_to_come as usize;
        same!(state.posted.len(), open, "frames in the queue");
        // The frame that an unwinding callback got is the only one more.
        for frame in &books.frames {
            let held = state.posted.iter().find(|held| held.token == frame.token);
            let held = held.ok_or_else(|| format!("{frame:?} is not in the queue"))?;
            let parts = frame.parts.iter().map(|(region, range)| {
                let first = REGIONS[*region].0;
                (*region, first + range.start..first + range.end)
            });
            same!(
                state.parts(held),
                parts.collect::<Vec<_>>(),
                "{frame:?} names"
            );
        }
        state.look_at_all();
        same!(state.violations.first(), None, "the device");
        Ok(())
    }

    /// Drops the port as it is, and then the device reads all that it may.
    fn drop_port(self) -> Result<(), String> {
        let Self {
            setup,
            machine,
            port,
            books,
            loans,
            ..
        } = self;
        drop(port);
        drop(loans);
        let mut state = machine.lock();
        state.look_at_all();
        same!(state.violations.first(), None, "after the drop");
        for region in 0..setup.regions {
            // Released before, or not lent to anybody: else it is leaked.
            let expected = u32::from(!books.held(region));
            same!(state.drops[region], expected, "region {region} at the end");
        }
        let expected = if books.frames.is_empty() { 2 } else { 0 };
        same!(state.pool_drops, expected, "blocks of the pool freed");
        drop(state);
        machine.gone();
        Ok(())
    }

    /// Actions one after the other, each one checked.
    fn play(&mut self, steps: &mut u64, actions: &[Action]) -> Result<(), String> {
        for action in actions {
            *steps += 1;
            self.apply(*action)
                .map_err(|what| format!("at {action:?} of the ending: {what}"))?;
        }
        Ok(())
    }

    /// The device does its work, as far as it may.
    fn drain(&mut self, steps: &mut u64) -> Result<(), String> {
        let power = self.machine.lock().power;
        if power == Power::Running {
            self.play(steps, &[Action::Doorbell])?;
            while !self.machine.lock().at(Stage::Rung).is_empty() {
                self.play(steps, &[Action::Complete(0)])?;
            }
            self.play(steps, &[Action::Reclaim])?;
        }
        if power == Power::Stopping {
            self.play(steps, &[Action::Quiet])?;
        }
        if self.books.interrupted && power == Power::Running {
            self.play(steps, &[Action::Begin, Action::Quiet])?;
        }
        // Does nothing unless the device is quiet.
        self.play(steps, &[Action::Stop])
    }

    fn give_back_all(&mut self, steps: &mut u64) -> Result<(), String> {
        while !self.loans.is_empty() {
            self.play(steps, &[Action::GiveBack(0)])?;
        }
        Ok(())
    }

    fn release_all(&mut self, steps: &mut u64) -> Result<(), String> {
        for region in 0..self.setup.regions {
            if !self.books.closing[region] {
                self.play(steps, &[Action::Release(region)])?;
            }
        }
        Ok(())
    }
}

impl World for Pages {
    type Setup = Setup;
    type Action = Action;
    const ENDINGS: &'static [&'static str] = &["Drain", "Acknowledge", "Stopped", "Drop"];

    fn new(setup: &Setup) -> Self {
        let machine = Machine::new(setup.frames, setup.fault);
        let (mut device, queue) = Device::new(&machine, 5);
        let page = Granule::from_bytes(PAGE).unwrap();
        let layout = PoolLayout {
            small_len: HEADER,
            small_count: BUFFERS,
            large_len: 0,
            large_count: 0,
            page,
        };
        let mut port = TxPort::new(&mut device, queue, &layout).unwrap();
        let register = |(region, (start, len)): (usize, &(usize, usize))| {
            let region = machine.region(region, *start, *len, page);
            port.ledger_mut().register(region).unwrap()
        };
        let regions = REGIONS.iter().take(setup.regions).enumerate();
        let ids: Vec<_> = regions.map(register).collect();
        Self {
            setup: setup.clone(),
            machine,
            device,
            port,
            books: Books {
                closing: vec![false; ids.len()],
                ..Books::default()
            },
            ids,
            loans: Vec::new(),
            handed_out: [0; 2],
        }
    }

    fn enabled(&self) -> Vec<Action> {
        let Setup {
            regions,
            loans: most_loans,
            any_order,
            resets,
            mishaps,
            ..
        } = self.setup;
        let loans = self.loans.len();
        let mut actions = Vec::new();
        if loans < most_loans {
            actions.extend((0..regions).map(Action::Lend));
            actions.extend((0..loans).map(Action::Again));
        }
        let trims = (0..loans).filter(|n| self.loans[*n].len() > TRIM);
        actions.extend(trims.map(Action::Trim));
        actions.extend((0..loans).map(Action::GiveBack));
        let mut shapes = vec![Shape::Bare];
        shapes.extend((0..loans).map(Shape::Whole));
        if loans > 1 {
            shapes.extend([Shape::Gather(0, 1), Shape::Gather(1, 0)]);
        }
        actions.extend(shapes.iter().copied().map(Action::Post));
        let (rung, power) = {
            let state = self.machine.lock();
            (state.at(Stage::Rung).len(), state.power)
        };
        actions.push(Action::Doorbell);
        if power != Power::Quiet {
            let first = if any_order { rung } else { rung.min(1) };
            actions.extend((0..first).map(Action::Complete));
        }
        actions.push(Action::Reclaim);
        actions.extend((0..regions).map(Action::Release));
        if resets {
            actions.extend([Action::Begin, Action::Restart, Action::RestartFails]);
            actions.push(Action::Stop);
            if power == Power::Stopping {
                actions.extend([Action::Quiet, Action::Stuck]);
            }
        }
        if mishaps {
            actions.extend(shapes.iter().copied().map(Action::Undo));
            if self.books.lost.is_empty() {
                actions.extend((0..loans).map(Action::Forget));
            }
            let works = matches!(power, Power::Running | Power::Stopping);
            if works && !self.books.interrupted && !self.books.done.is_empty() {
                actions.push(Action::Unwind);
            }
        }
        actions
    }

    fn apply(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Lend(region) => self.lend(region)?,
            Action::Again(loan) => self.again(loan)?,
            Action::Trim(loan) => {
                let ledger = self.port.ledger_mut();
                ledger.trim_front(&mut self.loans[loan], TRIM);
                self.books.loans[loan].1.start += TRIM;
            }
            Action::GiveBack(loan) => {
                let loan_given = self.loans.remove(loan);
                self.port.ledger_mut().give_back(loan_given);
                self.books.loans.remove(loan);
            }
            Action::Forget(loan) => {
                // A loan is plain data: to drop it is to forget it.
                drop(self.loans.remove(loan));
                let part = self.books.loans.remove(loan);
                self.books.lost.push(part);
            }
            Action::Post(shape) => self.post(shape)?,
            Action::Undo(shape) => same!(self.build(shape, false), Ok(None), "undo"),
            Action::Doorbell => {
                self.port.doorbell();
                if self.machine.lock().power == Power::Running {
                    let frames = self.books.frames.iter_mut();
                    frames
                        .filter(|frame| frame.stage == Stage::Posted)
                        .for_each(|frame| frame.stage = Stage::Rung);
                }
            }
            Action::Complete(nth) => self.complete(nth),
            Action::Reclaim => self.reclaim()?,
            Action::Unwind => self.unwind()?,
            Action::Release(region) => {
                let released = self.port.ledger_mut().release(self.ids[region]);
                let twice = self.books.closing[region];
                same!(released.is_err(), twice, "release");
                self.books.closing[region] = true;
            }
            Action::Begin => self.device.begin_reset(Instant::ZERO),
            Action::Quiet => self.machine.lock().power = Power::Quiet,
            Action::Stuck => self.machine.lock().power = Power::Failed,
            Action::Restart => self.reset(true, true)?,
            Action::RestartFails => self.reset(true, false)?,
            Action::Stop => self.reset(false, true)?,
        }
        self.agree()
    }

    fn key(&self) -> Vec<u8> {
        let mut key = Vec::new();
        let part = |key: &mut Vec<u8>, (region, range): &Part| {
            key.extend([*region as u8, range.start as u8, range.end as u8]);
        };
        let books = &self.books;
        key.extend(books.closing.iter().map(|closing| u8::from(*closing)));
        // Which loan has which place is the explorer's affair: the code is handed a loan, not a
        // place. Every order of them is one state.
        let mut loans: Vec<&Part> = books.loans.iter().collect();
        loans.sort_by_key(|(region, range)| (*region, range.start));
        key.push(loans.len() as u8);
        loans.iter().for_each(|p| part(&mut key, p));
        key.push(books.lost.len() as u8);
        books.lost.iter().for_each(|p| part(&mut key, p));
        let state = self.machine.lock();
        key.extend([state.power as u8, u8::from(books.interrupted)]);
        for held in &state.posted {
            key.extend([held.token.0 as u8, held.stage as u8]);
        }
        key.push(0xff);
        key.extend(state.done.iter().map(|token| token.0 as u8));
        for frame in &books.frames {
            key.push(0xff);
            frame.parts.iter().for_each(|p| part(&mut key, p));
        }
        key
    }

    fn events(&self) -> Vec<&'static str> {
        let books = &self.books;
        let power = self.machine.lock().power;
        let mut events = Vec::new();
        for region in 0..self.setup.regions {
            let read = |frame: &Frame| frame.parts.iter().any(|(of, _)| *of == region);
            let frames = books.frames.iter().filter(|frame| read(frame)).count();
            let loans = books.loans.iter().filter(|(of, _)| *of == region).count();
            let out_of_step = books.frames.len() > 1 && books.frames[0].stage != Stage::Done;
            events.extend([
                (books.free(region), "given back"),
                (frames > 1, "two frames read a region"),
                (frames > 0 && loans == 0, "the device is the last holder"),
                (
                    books.closing[region] && frames == 0 && loans > 0,
                    "the connection is the last holder",
                ),
                (books.strays > 0, "a token came twice"),
                (power == Power::Quiet && frames > 0, "quiet with frames out"),
                (
                    power == Power::Failed && frames > 0,
                    "stuck with frames out",
                ),
                (
                    out_of_step && !books.done.is_empty(),
                    "completed out of order",
                ),
            ]);
        }
        events.sort_unstable();
        events.dedup();
        let came = events.into_iter().filter(|(came, _)| *came);
        came.map(|(_, event)| event).collect()
    }

    fn finish(mut self, ending: usize) -> Result<u64, String> {
        let mut steps = 1;
        match ending {
            // The device first, then the acknowledgments.
            0 => {
                self.drain(&mut steps)?;
                self.give_back_all(&mut steps)?;
                self.release_all(&mut steps)?;
            }
            // The other way round.
            1 => {
                self.release_all(&mut steps)?;
                self.give_back_all(&mut steps)?;
                self.drain(&mut steps)?;
            }
            // The device is stopped in the midst of its work.
            2 => {
                self.release_all(&mut steps)?;
                self.play(&mut steps, &[Action::Begin])?;
                if self.machine.lock().power == Power::Stopping {
                    self.play(&mut steps, &[Action::Quiet])?;
                }
                self.play(&mut steps, &[Action::Stop])?;
                self.give_back_all(&mut steps)?;
            }
            _ => {}
        }
        self.drop_port()?;
        Ok(steps)
    }
}
