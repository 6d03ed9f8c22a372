//! A machine with an 82599 or X540, the driver on it, and the far end of the wire.

use std::sync::Arc;
use std::time::Duration;

use crate::listener::Listener;
use pagewire::hal::{
    DmaBuffer, Fragment, Granule, Nic, Offload, Phase, PostError, QueuePair, Region, RxHash,
    RxQueue, Token, TxFrame, TxQueue,
};
use pagewire::ixgbe::{Config, Ixgbe, IxgbeRx, IxgbeTx};
use pagewire_models::ixgbe::{Counters, Ixgbe82599, ModelConfig};
use pagewire_models::wire::{PairEnd, Plug, pair};
use pagewire_models::{Host, HostConfig, HostMemory, ModelHandle, ModelPlatform, Wire};

pub(crate) type Pair = (IxgbeTx<ModelPlatform>, IxgbeRx<ModelPlatform>);

/// See the [module](self).
pub(crate) struct Lab {
    pub(crate) host: Host,
    pub(crate) model: ModelHandle<Listener>,
    pub(crate) nic: Ixgbe<ModelPlatform>,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) far: PairEnd,
    pub(crate) plug: Plug,
    /// What the device may still read.
    kept: Vec<DmaBuffer<HostMemory>>,
}

impl Lab {
    /// Opens the driver and takes all pairs of queues; the link is up.
    pub(crate) fn new(model: ModelConfig, config: &Config) -> Self {
        Self::with_vectors(model, config, 64)
    }

    /// The same, and the system grants so many vectors at most.
    pub(crate) fn with_vectors(model: ModelConfig, config: &Config, vectors: u16) -> Self {
        let seed = model.seed;
        let granule = Granule::from_bytes(4096).unwrap();
        let host = Host::new(HostConfig { seed, granule });
        let (near, far) = pair();
        let plug = far.plug();
        let (listener, _) = Listener::new(Ixgbe82599::new(model, Box::new(near)), vectors);
        let attached = host.attach(listener);
        let mut nic = Ixgbe::open(attached.platform, config)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let pairs = (0..config.queue_pairs).map_while(|index| nic.take_queues(index));
        let pairs: Vec<_> = pairs.collect();
        assert_eq!(pairs.len(), usize::from(config.queue_pairs));
        let mut lab = Self {
            host,
            model: attached.handle,
            nic,
            pairs,
            far,
            plug,
            kept: Vec::new(),
        };
        lab.wait_for_link();
        lab
    }

    pub(crate) fn wait_for_link(&mut self) {
        for _ in 0..2000 {
            if self.nic.link().up {
                return;
            }
            self.run(1);
        }
        panic!("no link");
    }

    /// Lets the device work for `steps` of 10 µs.
    pub(crate) fn run(&self, steps: u32) {
        for _ in 0..steps {
            self.model.step();
            self.host.advance(Duration::from_micros(10));
        }
    }

    /// A fragment with a copy of `bytes`.
    pub(crate) fn fragment(&mut self, bytes: &[u8]) -> Fragment {
        let memory = self.nic.allocate(bytes.len(), 1).unwrap();
        let mut buffer = DmaBuffer::new(memory);
        buffer.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
        let run = buffer.translation().runs(0, bytes.len()).next().unwrap();
        self.kept.push(buffer);
        assert_eq!(run.len, bytes.len());
        Fragment {
            address: run.address,
            len: bytes.len() as u32,
        }
    }

    /// Posts a frame on a pair; what it names stays until the lab is dropped.
    pub(crate) fn post(
        &mut self,
        pair: usize,
        fragments: &[Fragment],
        offload: Offload,
        token: u32,
    ) -> Result<(), PostError> {
        let frame = TxFrame {
            fragments,
            offload,
            first: None,
        };
        // SAFETY: fragments are of `self.kept`, or of regions that the tests keep, and the device
        // does nothing any more when these are dropped, as nobody steps it.
        unsafe { self.pairs[pair].0.post(&frame, Token(token)) }
    }

    /// Rings the doorbell of a pair and waits until nothing is out on it; the tokens.
    pub(crate) fn finish(&mut self, pair: usize) -> Vec<u32> {
        let mut tokens = Vec::new();
        self.pairs[pair].0.doorbell();
        for _ in 0..5000 {
            let done = self.pairs[pair]
                .0
                .reclaim(&mut |token| tokens.push(token.0));
            done.unwrap();
            if self.pairs[pair].0.outstanding() == 0 {
                return tokens;
            }
            self.run(1);
        }
        panic!("frames do not complete on pair {pair}");
    }

    /// The frames that are at the far end.
    pub(crate) fn arrived(&mut self) -> Vec<Vec<u8>> {
        let mut frame = Vec::new();
        let now = self.host.now();
        let far = &mut self.far;
        std::iter::from_fn(|| far.receive(&mut frame, now).then(|| frame.clone())).collect()
    }

    /// Sends `frame` to the NIC, with its address, and waits until some pair has received it: the
    /// pair, the bytes, the hash.
    pub(crate) fn receive(&mut self, frame: &[u8]) -> (usize, Vec<u8>, Option<RxHash>) {
        let mut sent = frame.to_vec();
        sent[..6].copy_from_slice(&self.nic.mac_address().0);
        let now = self.host.now();
        self.far.transmit(&mut sent, now);
        for _ in 0..5000 {
            if let Some(got) = self.take() {
                return got;
            }
            self.run(1);
        }
        panic!("a frame was not received");
    }

    /// A frame that has been received by now.
    pub(crate) fn take(&mut self) -> Option<(usize, Vec<u8>, Option<RxHash>)> {
        let mut got = None;
        for (index, (_, rx)) in self.pairs.iter_mut().enumerate() {
            let count = rx.receive(1, &mut |frame| {
                let mut bytes = vec![0; frame.len()];
                frame.copy_to(&mut bytes);
                got = Some((index, bytes, frame.hash()));
            });
            if count.unwrap() > 0 {
                break;
            }
        }
        got
    }

    /// Resets the device with all pairs: the position and token of each frame that came back.
    pub(crate) fn reset(&mut self) -> Vec<(u16, u32)> {
        self.reset_beside(|_| {})
    }

    /// The same, with something done to the pairs each time that the driver was polled, also when
    /// the device is quiet.
    pub(crate) fn reset_beside(&mut self, work: impl FnMut(&mut Self)) -> Vec<(u16, u32)> {
        let back = self.stop_and_restart(work);
        self.wait_for_link();
        back
    }

    /// The same, and not a moment passes after the restart.
    pub(crate) fn stop_and_restart(&mut self, mut work: impl FnMut(&mut Self)) -> Vec<(u16, u32)> {
        self.nic.begin_reset(self.host.now());
        for _ in 0..100_000 {
            let quiet = self.nic.poll(self.host.now()) == Ok(Phase::Quiet);
            work(self);
            if quiet {
                break;
            }
            self.run(1);
        }
        let mut back = Vec::new();
        let mut lent: Vec<_> = self
            .pairs
            .iter_mut()
            .map(|(tx, rx)| QueuePair { tx, rx })
            .collect();
        self.nic
            .restart(&mut lent, &mut |position, token| {
                back.push((position, token.0))
            })
            .unwrap();
        back
    }

    pub(crate) fn counters(&self) -> Counters {
        self.model
            .with_device(|device| device.inner.counters().clone())
    }

    /// Memory of a program, in pieces of 4 KiB for the device, and the fragments of a part of it.
    pub(crate) fn region(&self, bytes: Vec<u8>) -> Arc<dyn Region> {
        self.host.register(bytes).unwrap()
    }

    /// Fails if the driver has done what the specification forbids.
    pub(crate) fn assert_clean(&self) {
        let violations = self.model.violations();
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

/// The fragments of `len` bytes of `region` from `start`.
pub(crate) fn fragments(region: &Arc<dyn Region>, start: usize, len: usize) -> Vec<Fragment> {
    let runs = region.translation().runs(start, len);
    runs.map(|run| Fragment {
        address: run.address,
        len: run.len as u32,
    })
    .collect()
}
