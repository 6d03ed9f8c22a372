//! Time: the time stamp counter, measured once against the programmable interval timer.

use core::arch::x86_64::_rdtsc;
use core::time::Duration;

use pagewire_hal::Instant;

use crate::port;

/// The timer's third counter: its gate and its output are in the port of the speaker.
const COUNTER: u16 = 0x42;
const CONTROL: u16 = 0x43;
const SPEAKER: u16 = 0x61;
const GATE: u8 = 1 << 0;
const SOUND: u8 = 1 << 1;
const OUTPUT: u8 = 1 << 5;
/// Third counter, two bytes, mode 0: the output rises at the end of the count.
const COUNT_DOWN: u8 = 0b1011_0000;
/// Counts per second.
const TIMER_HZ: u64 = 1_193_182;
/// 20 ms.
const COUNT: u16 = 23_864;

/// A clock that starts when it is made.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    start: u64,
    /// Nanoseconds per tick, times 2^32.
    scale: u64,
}

impl Clock {
    /// Measures the counter; takes 20 ms.
    pub(crate) fn new() -> Self {
        let ticks = ticks_of_count().max(1);
        let nanos = u128::from(COUNT) * 1_000_000_000 / u128::from(TIMER_HZ);
        Self {
            start: counter(),
            scale: u64::try_from((nanos << 32) / u128::from(ticks)).unwrap_or(u64::MAX),
        }
    }

    /// The time since the clock was made.
    pub(crate) fn now(&self) -> Instant {
        let ticks = counter().saturating_sub(self.start);
        Instant::from_nanos(((u128::from(ticks) * u128::from(self.scale)) >> 32) as u64)
    }

    /// Returns after `duration`.
    pub(crate) fn wait(&self, duration: Duration) {
        let end = self.now() + duration;
        while self.now() < end {
            core::hint::spin_loop();
        }
    }
}

fn counter() -> u64 {
    // SAFETY: every x86-64 CPU has the counter, and this program may read it.
    unsafe { _rdtsc() }
}

/// Ticks of the time stamp counter while the timer counts down from `COUNT`.
fn ticks_of_count() -> u64 {
    let [low, high] = COUNT.to_le_bytes();
    // SAFETY: speaker and timer reach no memory, and nobody else uses them.
    let speaker = unsafe { port::read8(SPEAKER) } & !SOUND | GATE;
    for (register, value) in [
        (SPEAKER, speaker),
        (CONTROL, COUNT_DOWN),
        (COUNTER, low),
        (COUNTER, high),
    ] {
        // SAFETY: as above.
        unsafe { port::write8(register, value) };
    }
    let begin = counter();
    // SAFETY: as above.
    while unsafe { port::read8(SPEAKER) } & OUTPUT == 0 {
        core::hint::spin_loop();
    }
    counter() - begin
}
