//! What a self-test asks of the device beyond sending and receiving: its registers, before it is
//! opened.

use pagewire_hal::driver::{self, RegisterError, WrongRegister};
use pagewire_hal::{NicError, Platform, Registers, pci};

use crate::config::Config;
use crate::features::Features;
use crate::regs::{
    self, Area, CONFIG_MSIX_VECTOR, DEVICE_FEATURE, DEVICE_FEATURE_SELECT, DEVICE_STATUS,
    DRIVER_FEATURE_SELECT, NO_VECTOR, NUM_QUEUES, QUEUE_DESC, QUEUE_DEVICE, QUEUE_DRIVER,
    QUEUE_ENABLE, QUEUE_MSIX_VECTOR, QUEUE_NOTIFY_OFF, QUEUE_SELECT, QUEUE_SIZE, Status,
    Structures,
};
use crate::{VirtioNet, init};

/// Queues that are looked at, of those that the device has.
const MOST_QUEUES: u16 = 16;

impl<P: Platform> VirtioNet<P> {
    /// Before the device is opened: resets it and checks that the registers of its common
    /// configuration behave as the specification has it (virtio 1.3, sections 4.1.4.3 and 2.1);
    /// the number of fields that were looked at. It is left reset.
    ///
    /// # Errors
    /// The first field that is wrong, or what finding the structures and the reset said.
    pub fn check_registers(platform: &mut P) -> Result<u32, RegisterError> {
        driver::identify(platform, crate::supported)?;
        pci::enable_memory(platform);
        let device = regs::locate(platform)?;
        if device.is_gone() {
            return Err(NicError::Removed.into());
        }
        init::reset(platform, &device)?;
        pci::stop_bus_mastering(platform);
        let mut check = Check {
            common: &device.common,
            fields: 0,
        };
        let result = check.all(&device);
        // What was written must not be there when the device is opened.
        let reset = init::reset(platform, &device);
        result?;
        reset?;
        Ok(check.fields)
    }
}

/// Looks at fields of the common configuration.
struct Check<'a, R: Registers> {
    common: &'a Area<R>,
    fields: u32,
}

type Checked = Result<(), WrongRegister>;

impl<R: Registers> Check<'_, R> {
    fn all(&mut self, device: &Structures<R>) -> Result<(), RegisterError> {
        self.status()?;
        self.features()?;
        // Queues are set up behind that (section 3.1.1).
        init::negotiate(device, &Config::default(), None)?;
        Ok(self.queues(device)?)
    }

    /// Compares what a field reads with what it must.
    fn expect(
        &mut self,
        name: &'static str,
        offset: u32,
        written: Option<u32>,
        found: u32,
        expected: u32,
    ) -> Checked {
        self.fields += 1;
        if found == expected {
            return Ok(());
        }
        Err(WrongRegister {
            name,
            offset,
            written,
            found,
            expected,
        })
    }

    /// Writes a field of 16 bits and reads it back.
    fn holds16(&mut self, name: &'static str, offset: u32, value: u16) -> Checked {
        self.common.write16(offset, value);
        let (found, value) = (self.common.read16(offset).into(), value.into());
        self.expect(name, offset, Some(value), found, value)
    }

    /// 0 after the reset; each bit that the driver sets is kept (section 2.1.1).
    fn status(&mut self) -> Checked {
        let mut status = Status::empty();
        for next in [Status::empty(), Status::ACKNOWLEDGE, Status::DRIVER] {
            status |= next;
            let written = (!next.is_empty()).then_some(status.bits());
            if let Some(bits) = written {
                self.common.write8(DEVICE_STATUS, bits);
            }
            let found = u32::from(self.common.read8(DEVICE_STATUS));
            let expected = u32::from(status.bits());
            let written = written.map(u32::from);
            self.expect("device_status", DEVICE_STATUS, written, found, expected)?;
        }
        Ok(())
    }

    /// What is selected is what is read; VERSION_1 is offered; bits 64 and above, of which there
    /// are none that this driver knows, are not read as those below.
    fn features(&mut self) -> Checked {
        for select in [1, 0, 1] {
            let at = DEVICE_FEATURE_SELECT;
            self.common.write32(at, select);
            let found = self.common.read32(at);
            self.expect("device_feature_select", at, Some(select), found, select)?;
            let at = DRIVER_FEATURE_SELECT;
            self.common.write32(at, select);
            let found = self.common.read32(at);
            self.expect("driver_feature_select", at, Some(select), found, select)?;
        }
        let high = self.common.read32(DEVICE_FEATURE);
        let version = (Features::VERSION_1.bits() >> 32) as u32;
        self.expect(
            "device_feature",
            DEVICE_FEATURE,
            None,
            high & version,
            version,
        )?;
        let again = self.common.read32(DEVICE_FEATURE);
        self.expect("device_feature", DEVICE_FEATURE, None, again, high)
    }

    /// There are at least two queues. Each has a size that is no more than 32768, is not enabled,
    /// has a doorbell, and holds addresses and a vector; behind the last there is none (its size
    /// reads 0).
    fn queues(&mut self, device: &Structures<R>) -> Checked {
        let count = self.common.read16(NUM_QUEUES);
        let (found, least) = (u32::from(count), u32::from(count.max(2)));
        self.expect("num_queues", NUM_QUEUES, None, found, least)?;
        for queue in 0..count.min(MOST_QUEUES) {
            self.holds16("queue_select", QUEUE_SELECT, queue)?;
            self.queue(device, queue)?;
        }
        for queue in 0..count.min(MOST_QUEUES) {
            self.holds16("queue_select", QUEUE_SELECT, queue)?;
            self.addresses(queue, false)?;
        }
        self.holds16("config_msix_vector", CONFIG_MSIX_VECTOR, NO_VECTOR)?;
        if count < u16::MAX {
            self.common.write16(QUEUE_SELECT, count);
            let found = u32::from(self.common.read16(QUEUE_SIZE));
            self.expect("queue_size", QUEUE_SIZE, None, found, 0)?;
        }
        Ok(())
    }

    fn queue(&mut self, device: &Structures<R>, queue: u16) -> Checked {
        let size = u32::from(self.common.read16(QUEUE_SIZE));
        self.expect("queue_size", QUEUE_SIZE, None, size, size.clamp(1, 0x8000))?;
        let enabled = u32::from(self.common.read16(QUEUE_ENABLE));
        self.expect("queue_enable", QUEUE_ENABLE, None, enabled, 0)?;
        if device.doorbell(queue).is_none() {
            return Err(WrongRegister {
                name: "queue_notify_off (the doorbell is outside the structure)",
                offset: QUEUE_NOTIFY_OFF,
                written: None,
                found: self.common.read16(QUEUE_NOTIFY_OFF).into(),
                expected: 0,
            });
        }
        self.holds16("queue_msix_vector", QUEUE_MSIX_VECTOR, NO_VECTOR)?;
        self.addresses(queue, true)
    }

    /// The addresses of the selected queue: written, or read back.
    fn addresses(&mut self, queue: u16, write: bool) -> Checked {
        for (name, at) in [
            ("queue_desc", QUEUE_DESC),
            ("queue_driver", QUEUE_DRIVER),
            ("queue_device", QUEUE_DEVICE),
        ] {
            let low = (u32::from(queue) + 1) << 20 | at << 12;
            let words = [(at, low), (at + 4, 0x5A00 | u32::from(queue))];
            if write {
                let address = u64::from(words[1].1) << 32 | u64::from(words[0].1);
                // SAFETY: bus mastering is off, no queue is enabled, and the device is reset before
                // either changes.
                unsafe { self.common.write_queue_address(at, address) };
                continue;
            }
            for (at, word) in words {
                let found = self.common.read32(at);
                self.expect(name, at, Some(word), found, word)?;
            }
        }
        Ok(())
    }
}
