//! Where a PCI function is in the machine.

use std::fmt;
use std::str::FromStr;

/// Domain, bus, device and function of a PCI function, as Linux writes them: `0000:03:00.0`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PciAddress {
    /// PCI domain (segment); 16 bits, more where a bridge in software (VMD) makes one up.
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device (slot), 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

/// The text is no PCI address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseAddressError {
    text: String,
}

impl fmt::Display for ParseAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.text;
        write!(
            f,
            "{text:?} is no PCI address: 0000:03:00.0 or 03:00.0 is meant (hexadecimal; `lspci -D` \
             prints them)"
        )
    }
}

impl std::error::Error for ParseAddressError {}

impl FromStr for PciAddress {
    type Err = ParseAddressError;

    /// Reads `DOMAIN:BUS:DEVICE.FUNCTION` or, of domain 0, `BUS:DEVICE.FUNCTION`, in hexadecimal.
    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        parse(text).ok_or_else(|| ParseAddressError {
            text: text.to_owned(),
        })
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
    let address = PciAddress {
        domain: hexadecimal(domain, 8)?,
        bus: u8::try_from(hexadecimal(bus, 2)?).ok()?,
        device: u8::try_from(hexadecimal(device, 2)?).ok()?,
        function: u8::try_from(hexadecimal(function, 1)?).ok()?,
    };
    (address.device < 32 && address.function < 8).then_some(address)
}

/// A number of at most `digits` digits, without a sign.
fn hexadecimal(text: &str, digits: usize) -> Option<u32> {
    let good = text.len() <= digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u32::from_str_radix(text, 16).ok().filter(|_| good)
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_linux_writes_them() {
        for text in ["0000:03:00.0", "0001:ff:1f.7", "10000:e1:00.0"] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), text);
        }
        let short: PciAddress = "3:0.1".parse().unwrap();
        assert_eq!(short.to_string(), "0000:03:00.1");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let bad = [
            "",
            ".",
            ":.",
            "eth0",
            "0000:03:00",
            "0000:03:20.0",
            "0000:03:00.8",
            "0000:103:00.0",
            "+0:03:00.0",
            "0000:03:00.0\n",
            "../../0000:03:00.0",
            "0000:0000:03:00.0",
        ];
        for text in bad {
            let refused = text.parse::<PciAddress>();
            assert!(refused.is_err(), "{text:?} was read as {refused:?}");
        }
        let error = "eth0".parse::<PciAddress>().unwrap_err();
        assert!(error.to_string().contains("0000:03:00.0"), "{error}");
    }
}
