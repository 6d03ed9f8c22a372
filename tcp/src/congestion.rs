//! Congestion control: NewReno (RFC 5681, RFC 6582) with appropriate byte counting (RFC 3465).

/// The largest window: what a window field of 16 bits shifted by 14 can say (RFC 7323
/// section 2.3), about 1 GiB. More could never be in flight.
const MAX_WINDOW: u32 = 0xffff << 14;
/// L: segments by which one ACK may open the window in slow start (RFC 3465 section 2.2).
const SLOW_START_LIMIT: u32 = 2;
/// L where segments leave in requests of several: a receiver that joins what arrives together
/// acknowledges such a burst at once, and with two segments for each the window would hardly
/// grow. RFC 3465 allows no more than 2; RFC 9406 has 8 for senders without pacing, as this is.
const SLOW_START_LIMIT_OF_REQUESTS: u32 = 8;
/// L in the slow start after a timeout: one ACK may then cover segments that had arrived long
/// before, and says nothing of the rate of the path (RFC 3465 section 2.3).
const SLOW_START_LIMIT_AFTER_TIMEOUT: u32 = 1;

/// What the sender is doing about loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// No loss is known.
    Open,
    /// Fast recovery by duplicate ACKs: the window is inflated by what they say has left.
    Recovery,
    /// Fast recovery by SACK: the window stands still, the scoreboard says what has left.
    SackRecovery,
    /// A timeout, and nothing has been acknowledged since.
    TimedOut,
}

/// The congestion window of one connection, in bytes.
///
/// The connection decides *when* there is loss (three duplicate ACKs, the scoreboard, the timer)
/// and remembers up to which byte a recovery lasts; this says how much may be in flight.
#[derive(Clone, Copy, Debug)]
pub struct NewReno {
    mss: u32,
    window: u32,
    /// ssthresh.
    threshold: u32,
    /// Bytes acknowledged towards the next MSS in congestion avoidance.
    acked: u32,
    /// L of RFC 3465 in segments. After a timeout it stays small: only another timeout leads to
    /// slow start again.
    limit: u32,
    phase: Phase,
    /// The window is still the initial one, so a new MSS changes it.
    initial: bool,
}

impl NewReno {
    /// The initial window of RFC 6928 for segments of `mss` payload bytes (0 counts as 1):
    /// min(10 × MSS, max(2 × MSS, 14600)).
    #[must_use]
    pub fn new(mss: u32) -> Self {
        let mss = mss.clamp(1, MAX_WINDOW);
        Self {
            mss,
            window: initial_window(mss),
            // RFC 5681 section 3.1: arbitrarily high at first.
            threshold: MAX_WINDOW,
            acked: 0,
            limit: SLOW_START_LIMIT,
            phase: Phase::Open,
            initial: true,
        }
    }

    /// The congestion window in bytes: how much may be in flight; at least one MSS, at most
    /// 1 GiB.
    #[must_use]
    #[inline]
    pub fn window(&self) -> u32 {
        self.window
    }

    /// The slow start threshold in bytes, ssthresh; 1 GiB before the first loss.
    #[must_use]
    #[inline]
    pub fn slow_start_threshold(&self) -> u32 {
        self.threshold
    }

    /// Whether a fast recovery is under way.
    #[must_use]
    #[inline]
    pub fn in_recovery(&self) -> bool {
        matches!(self.phase, Phase::Recovery | Phase::SackRecovery)
    }

    /// New data was acknowledged outside of recovery: `acked` bytes, of `flight_before` bytes
    /// that were in flight before this ACK. Does nothing in recovery.
    ///
    /// The window grows only if it was used, or a sender that has little to say would collect a
    /// window that no path has proven (RFC 5681 does not say so, RFC 7661 does). Used means here:
    /// at least half of it was in flight. A stricter rule fails where segments of a whole TSO
    /// burst wait for room together.
    #[inline]
    pub fn on_ack(&mut self, acked: u32, flight_before: u32) {
        if self.in_recovery() {
            return;
        }
        self.phase = Phase::Open;
        if flight_before < self.window / 2 {
            return;
        }
        self.initial = false;
        if self.window < self.threshold {
            // RFC 5681 section 3.1, equation 2, with L of RFC 3465.
            let growth = acked.min(self.limit.saturating_mul(self.mss));
            self.set_window(self.window.saturating_add(growth));
            return;
        }
        // Congestion avoidance, one MSS per window of acknowledged bytes (RFC 3465 section 2.1).
        self.acked = self.acked.saturating_add(acked);
        if self.acked >= self.window {
            self.acked -= self.window;
            self.set_window(self.window.saturating_add(self.mss));
        }
    }

    /// Three duplicate ACKs, without SACK, with `flight` bytes in flight: halves the window and
    /// inflates it by the three segments that have left the network (RFC 5681 section 3.2,
    /// steps 2 and 3). Does nothing in a recovery.
    ///
    /// The first two duplicate ACKs change nothing here; limited transmit (RFC 3042) may send a
    /// segment beyond the window for each.
    pub fn enter_recovery(&mut self, flight: u32) {
        if self.in_recovery() {
            return;
        }
        self.reduce(flight);
        self.set_window(self.threshold.saturating_add(self.mss.saturating_mul(3)));
        self.phase = Phase::Recovery;
    }

    /// Loss found by the SACK scoreboard, with `flight` bytes in flight: halves the window
    /// (RFC 6675 section 5, step 4.2). It then stands still until
    /// [`exit_recovery`](Self::exit_recovery), and is to be compared with the bytes that the
    /// scoreboard believes to be in the network ("pipe"), not with the flight size. Does nothing
    /// in a recovery.
    pub fn enter_sack_recovery(&mut self, flight: u32) {
        if self.in_recovery() {
            return;
        }
        self.reduce(flight);
        self.set_window(self.threshold);
        self.phase = Phase::SackRecovery;
    }

    /// A further duplicate ACK in recovery: one more segment has left the network, so the window
    /// is inflated by one (RFC 5681 section 3.2, step 4). Does nothing outside of recovery, and
    /// in a recovery by SACK.
    pub fn on_duplicate_ack(&mut self) {
        if self.phase == Phase::Recovery {
            self.set_window(self.window.saturating_add(self.mss));
        }
    }

    /// An ACK in recovery for `acked` new bytes, but not for all that was in flight at its
    /// start: deflates the window by what was acknowledged, and adds back one MSS if it was at
    /// least that (RFC 6582 section 3.2, step 3, partial acknowledgments). Does nothing outside
    /// of recovery, and in a recovery by SACK.
    pub fn on_partial_ack(&mut self, acked: u32) {
        if self.phase != Phase::Recovery {
            return;
        }
        let mut window = self.window.saturating_sub(acked);
        if acked >= self.mss {
            window = window.saturating_add(self.mss);
        }
        self.set_window(window);
    }

    /// All that was in flight at the start of the recovery is acknowledged: the window is the
    /// threshold (RFC 6582 section 3.2, step 3, full acknowledgments, option 2). The connection
    /// takes care that what this lets go does not leave in one burst. Does nothing outside of
    /// recovery.
    pub fn exit_recovery(&mut self) {
        if self.in_recovery() {
            self.set_window(self.threshold);
            self.acked = 0;
            self.phase = Phase::Open;
        }
    }

    /// The retransmission timer expired with `flight` bytes in flight: slow start from one MSS
    /// (RFC 5681 section 3.1). The threshold is halved only by the first of several timeouts in
    /// a row; it stays for a segment that the timer has sent again already.
    pub fn on_timeout(&mut self, flight: u32) {
        if self.phase != Phase::TimedOut {
            self.reduce(flight);
        }
        self.set_window(self.mss);
        self.limit = SLOW_START_LIMIT_AFTER_TIMEOUT;
        self.phase = Phase::TimedOut;
    }

    /// Several segments have left as one request for segmentation: one ACK may open the window by
    /// 8 segments in slow start from now on, instead of 2. After a timeout it stays 1.
    pub fn sends_requests(&mut self) {
        if self.limit == SLOW_START_LIMIT {
            self.limit = SLOW_START_LIMIT_OF_REQUESTS;
        }
    }

    /// The SYN was sent more than once: the initial window is one MSS (RFC 5681 section 3.1).
    /// The threshold stays, as nothing is known of the path.
    pub fn handshake_retransmitted(&mut self) {
        if self.initial {
            self.set_window(self.mss);
            self.initial = false;
        }
    }

    /// Segments are `mss` payload bytes from now on (0 counts as 1). As long as nothing was
    /// acknowledged and nothing lost, the window is the initial one for that size; later it is
    /// only kept from falling below one segment.
    pub fn set_mss(&mut self, mss: u32) {
        self.mss = mss.clamp(1, MAX_WINDOW);
        self.set_window(if self.initial {
            initial_window(self.mss)
        } else {
            self.window
        });
    }

    /// ssthresh after a loss: RFC 5681, equation 4.
    fn reduce(&mut self, flight: u32) {
        self.threshold = (flight / 2).max(self.mss.saturating_mul(2)).min(MAX_WINDOW);
        self.acked = 0;
        self.initial = false;
    }

    #[inline]
    fn set_window(&mut self, window: u32) {
        self.window = window.clamp(self.mss, MAX_WINDOW);
    }
}

/// RFC 6928 section 2.
fn initial_window(mss: u32) -> u32 {
    let two = mss.saturating_mul(2);
    mss.saturating_mul(10).min(two.max(14_600)).min(MAX_WINDOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{config, seed};
    use proptest::prelude::*;

    const MSS: u32 = 1000;

    /// A connection in congestion avoidance, with a window of 10 segments.
    fn avoidance() -> NewReno {
        let mut cc = NewReno::new(MSS);
        cc.enter_recovery(20 * MSS);
        cc.exit_recovery();
        assert_eq!(cc.window(), 10 * MSS);
        cc
    }

    /// Acknowledges one window, segment by segment.
    fn one_round(cc: &mut NewReno) {
        let window = cc.window();
        for _ in 0..window / MSS {
            cc.on_ack(MSS, window);
        }
    }

    #[test]
    fn initial_window_of_rfc_6928() {
        for (mss, window) in [
            (536, 5360),
            (1460, 14_600),
            (1448, 14_480),
            (2000, 14_600),
            (8948, 17_896),
            (0, 10),
        ] {
            assert_eq!(NewReno::new(mss).window(), window, "MSS {mss}");
        }
    }

    #[test]
    fn slow_start_doubles_in_a_round_trip() {
        let mut cc = NewReno::new(MSS);
        one_round(&mut cc);
        assert_eq!(cc.window(), 20 * MSS);
        one_round(&mut cc);
        assert_eq!(cc.window(), 40 * MSS);
    }

    #[test]
    fn one_ack_opens_at_most_two_segments_and_no_more_than_it_acknowledges() {
        let mut cc = NewReno::new(MSS);
        cc.on_ack(8 * MSS, 10 * MSS);
        assert_eq!(cc.window(), 12 * MSS);
        cc.on_ack(1, 12 * MSS);
        assert_eq!(cc.window(), 12 * MSS + 1);
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut cc = NewReno::new(MSS);
        cc.on_ack(MSS, 5 * MSS - 1);
        assert_eq!(cc.window(), 10 * MSS);
        cc.on_ack(MSS, 5 * MSS);
        assert_eq!(cc.window(), 11 * MSS);
        let mut cc = avoidance();
        for _ in 0..100 {
            cc.on_ack(MSS, MSS);
        }
        assert_eq!(cc.window(), 10 * MSS);
    }

    #[test]
    fn congestion_avoidance_grows_one_segment_per_window() {
        let mut cc = avoidance();
        for _ in 0..9 {
            cc.on_ack(MSS, 10 * MSS);
            assert_eq!(cc.window(), 10 * MSS);
        }
        cc.on_ack(MSS, 10 * MSS);
        assert_eq!(cc.window(), 11 * MSS);
        one_round(&mut cc);
        assert_eq!(cc.window(), 12 * MSS);
        // One ACK for more than a window counts once, and the rest towards the next segment.
        cc.on_ack(18 * MSS, 12 * MSS);
        assert_eq!(cc.window(), 13 * MSS);
        cc.on_ack(7 * MSS, 13 * MSS);
        assert_eq!(cc.window(), 14 * MSS);
    }

    #[test]
    fn recovery_halves_inflates_and_deflates() {
        let mut cc = NewReno::new(MSS);
        cc.enter_recovery(20 * MSS);
        assert!(cc.in_recovery());
        assert_eq!(cc.slow_start_threshold(), 10 * MSS);
        assert_eq!(cc.window(), 13 * MSS);
        cc.on_duplicate_ack();
        assert_eq!(cc.window(), 14 * MSS);
        cc.on_partial_ack(4 * MSS);
        assert_eq!(cc.window(), 11 * MSS); // − 4 + 1
        cc.on_partial_ack(MSS / 2);
        assert_eq!(cc.window(), 10 * MSS + MSS / 2); // less than a segment: nothing added back
        cc.on_ack(MSS, 10 * MSS);
        assert_eq!(cc.window(), 10 * MSS + MSS / 2); // not an event of recovery
        cc.enter_recovery(4 * MSS);
        assert_eq!(cc.slow_start_threshold(), 10 * MSS); // halved once only
        cc.exit_recovery();
        assert!(!cc.in_recovery());
        assert_eq!(cc.window(), 10 * MSS);
    }

    #[test]
    fn recovery_by_sack_keeps_the_window_still() {
        let mut cc = NewReno::new(MSS);
        cc.enter_sack_recovery(20 * MSS);
        assert!(cc.in_recovery());
        assert_eq!(cc.window(), 10 * MSS);
        cc.on_duplicate_ack();
        cc.on_partial_ack(3 * MSS);
        assert_eq!(cc.window(), 10 * MSS);
        cc.exit_recovery();
        assert_eq!(cc.window(), 10 * MSS);
    }

    #[test]
    fn threshold_is_at_least_two_segments() {
        let mut cc = NewReno::new(MSS);
        cc.enter_sack_recovery(MSS);
        assert_eq!(cc.slow_start_threshold(), 2 * MSS);
    }

    #[test]
    fn an_ack_for_a_request_opens_by_eight_segments_until_a_timeout() {
        let mut cc = NewReno::new(MSS);
        cc.sends_requests();
        cc.on_ack(5 * MSS, 10 * MSS);
        assert_eq!(cc.window(), 15 * MSS);
        cc.on_ack(10 * MSS, 15 * MSS);
        assert_eq!(cc.window(), 23 * MSS);
        cc.on_timeout(20 * MSS);
        cc.sends_requests();
        cc.on_ack(5 * MSS, MSS);
        assert_eq!(cc.window(), 2 * MSS);
    }

    #[test]
    fn timeouts_in_a_row_halve_the_threshold_once() {
        let mut cc = NewReno::new(MSS);
        cc.on_timeout(20 * MSS);
        assert_eq!(cc.window(), MSS);
        assert_eq!(cc.slow_start_threshold(), 10 * MSS);
        cc.on_timeout(20 * MSS);
        cc.on_timeout(MSS);
        assert_eq!(cc.slow_start_threshold(), 10 * MSS);
        cc.on_ack(MSS, MSS);
        cc.on_timeout(8 * MSS);
        assert_eq!(cc.slow_start_threshold(), 4 * MSS);
    }

    #[test]
    fn slow_start_after_a_timeout_opens_one_segment_per_ack() {
        let mut cc = NewReno::new(MSS);
        cc.on_timeout(20 * MSS);
        cc.on_ack(6 * MSS, 6 * MSS);
        assert_eq!(cc.window(), 2 * MSS);
        while cc.window() < cc.slow_start_threshold() {
            let before = cc.window();
            cc.on_ack(2 * MSS, before);
            assert_eq!(cc.window(), before + MSS);
        }
        // Back in congestion avoidance; a timeout ends a recovery, too.
        one_round(&mut cc);
        assert_eq!(cc.window(), 11 * MSS);
        cc.enter_recovery(10 * MSS);
        cc.on_timeout(10 * MSS);
        assert!(!cc.in_recovery());
    }

    #[test]
    fn a_lost_syn_shrinks_the_initial_window_only() {
        let mut cc = NewReno::new(MSS);
        cc.handshake_retransmitted();
        assert_eq!(cc.window(), MSS);
        assert_eq!(cc.slow_start_threshold(), MAX_WINDOW);
        cc.set_mss(2 * MSS);
        assert_eq!(cc.window(), 2 * MSS);
    }

    #[test]
    fn a_new_mss_changes_the_initial_window_only() {
        let mut cc = NewReno::new(536);
        cc.set_mss(1460);
        assert_eq!(cc.window(), 14_600);
        cc.on_ack(1460, 14_600);
        cc.set_mss(536);
        assert_eq!(cc.window(), 16_060);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Ack(u32, u32),
        Enter(u32),
        EnterSack(u32),
        Duplicate,
        Partial(u32),
        Exit,
        Timeout(u32),
        Mss(u32),
        LostSyn,
        Requests,
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            any::<(u32, u32)>().prop_map(|(acked, flight)| Event::Ack(acked, flight)),
            any::<u32>().prop_map(Event::Enter),
            any::<u32>().prop_map(Event::EnterSack),
            Just(Event::Duplicate),
            any::<u32>().prop_map(Event::Partial),
            Just(Event::Exit),
            any::<u32>().prop_map(Event::Timeout),
            any::<u32>().prop_map(Event::Mss),
            Just(Event::LostSyn),
            Just(Event::Requests),
        ]
    }

    proptest! {
        #![proptest_config(config())]

        /// Whatever happens, in any order, the window lets one segment go and stays sane.
        #[test]
        fn window_keeps_its_bounds(
            mss: u32,
            events in prop::collection::vec(any_event(), 0..60),
        ) {
            let mut cc = NewReno::new(mss);
            for event in events {
                match event {
                    Event::Ack(acked, flight) => cc.on_ack(acked, flight),
                    Event::Enter(flight) => cc.enter_recovery(flight),
                    Event::EnterSack(flight) => cc.enter_sack_recovery(flight),
                    Event::Duplicate => cc.on_duplicate_ack(),
                    Event::Partial(acked) => cc.on_partial_ack(acked),
                    Event::Exit => cc.exit_recovery(),
                    Event::Timeout(flight) => cc.on_timeout(flight),
                    Event::Mss(mss) => cc.set_mss(mss),
                    Event::LostSyn => cc.handshake_retransmitted(),
                    Event::Requests => cc.sends_requests(),
                }
                prop_assert!(cc.window() >= cc.mss && cc.mss > 0, "seed {}", seed());
                prop_assert!(cc.window() <= MAX_WINDOW, "seed {}", seed());
                prop_assert!(cc.slow_start_threshold() <= MAX_WINDOW, "seed {}", seed());
            }
        }
    }
}
