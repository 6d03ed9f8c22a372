//! How addresses read.

use std::format;

use super::*;

#[test]
fn a_mac_address_reads_as_usual() {
    let mac = MacAddress([0, 0x1b, 0x21, 0xa, 0xff, 0x10]);
    assert_eq!(format!("{mac}"), "00:1b:21:0a:ff:10");
    assert_eq!(format!("{mac:?}"), "00:1b:21:0a:ff:10");
}
