//! Opening.

use pagewire_hal::{Nic, NicError};

use crate::fake::{Fake, MAC, X540T};
use crate::{Config, Ixgbe};

#[test]
fn the_fake_opens() {
    for fake in [Fake::new(), Fake::with_id(X540T)] {
        let mut nic = Ixgbe::open(fake.clone(), &Config::default()).expect("it opens");
        assert_eq!(nic.mac_address().0, MAC);
        assert_eq!(nic.capabilities().max_fragments, 37);
        assert!(nic.link().up);
        assert_eq!(nic.link().speed_mbps, 10_000);
    }
}

#[test]
fn a_damaged_eeprom_is_refused() {
    let fake = Fake::new();
    fake.device().eeprom[0x82] ^= 1;
    let error = Ixgbe::open(fake, &Config::default()).expect_err("it is damaged");
    assert!(
        matches!(error, NicError::EepromChecksum { found: 0xBABB, .. }),
        "{error}"
    );
}
