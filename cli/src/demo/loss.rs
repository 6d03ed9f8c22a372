//! Frames that are lost on a cable of this machine. The cable itself loses none, so they are lost at
//! its ends: at the NIC as soon as they are received, and at the receiver's socket, where the kernel
//! throws segments away before its TCP has seen them.

use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};
use socket2::{SockFilter, SockRef};

/// What is lost at the NIC, drawn by the seed.
pub(crate) struct Losses {
    dice: fastrand::Rng,
    percent: f64,
    lost: u64,
}

impl Losses {
    /// For one pair of queues.
    pub(crate) fn new(percent: f64, seed: u64, lane: usize) -> Self {
        let seed = seed ^ 0x10_55e5 ^ (lane as u64) << 32;
        Self {
            dice: fastrand::Rng::with_seed(seed),
            percent,
            lost: 0,
        }
    }

    /// Whether the next frame is lost.
    pub(crate) fn takes_one(&mut self) -> bool {
        let takes = self.percent > 0.0 && self.dice.f64() * 100.0 < self.percent;
        self.lost += u64::from(takes);
        takes
    }

    /// Frames lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }
}

/// Has the kernel lose that many of the segments for this socket, and for those that it accepts from
/// now on. The kernel draws them, by no seed.
pub(crate) fn lose(listener: &TcpListener, percent: f64) -> std::io::Result<()> {
    // Classic BPF, as in linux/filter.h: four instructions, whose jumps count from the next one.
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const RANDOM: u32 = (-0x1000_i32 + 56).cast_unsigned(); // SKF_AD_OFF + SKF_AD_RANDOM
    let below = (percent.clamp(0.0, 100.0) / 100.0 * f64::from(u32::MAX)) as u32;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_WORD, 0, 0, RANDOM),
        SockFilter::new(JUMP_IF_GREATER, 1, 0, below),
        // The length that is kept: nothing, or all.
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Segments for this socket that the kernel has thrown away, for whatever reason.
pub(crate) fn lost_by(socket: &impl AsFd) -> Result<u64> {
    // linux/sock_diag.h: an array of 32-bit numbers, this one the ninth.
    const DROPS: usize = 8;
    let mut numbers = [0_u32; DROPS + 1];
    let mut len = size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed; `numbers` and `len` live during the call, and
    // `len` is the length of `numbers`, which the kernel does not exceed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    match result {
        0 => Ok(numbers[DROPS].into()),
        _ => Err(std::io::Error::last_os_error()
            .raw_os_error()
            .map_or(Errno::IO, Errno::from_raw_os_error)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn as_many_are_lost_as_asked_for() {
        let mut losses = Losses::new(5.0, 1, 0);
        let taken = (0..100_000).filter(|_| losses.takes_one()).count();
        assert!((4500..5500).contains(&taken), "{taken}");
        assert_eq!(losses.lost(), taken as u64);
        assert!((0..1000).all(|_| !Losses::new(0.0, 1, 0).takes_one()));
        assert!((0..1000).all(|_| Losses::new(100.0, 1, 0).takes_one()));
    }

    #[test]
    fn the_kernel_loses_segments_and_tcp_mends_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        lose(&listener, 20.0).unwrap();
        let address = listener.local_addr().unwrap();
        let writer = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            for index in 0..100_u8 {
                stream.write_all(&[index]).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        assert!(bytes.iter().copied().eq(0..100), "{bytes:?}");
        // One in five of some dozens; none by chance once in a million.
        assert!(lost_by(&stream).unwrap() > 0);
        writer.join().unwrap();
    }

    #[test]
    fn nothing_is_lost_unless_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        lose(&listener, 0.0).unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(b"all of it").unwrap();
        drop(near);
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), lost_by(&far)), ("all of it", Ok(0)));
    }
}
