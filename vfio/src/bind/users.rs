//! Users, by name or number.

use super::system::System;

/// Who gets a device file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// The user's number.
    pub id: u32,
    /// The name that was asked for.
    pub name: String,
}

impl User {
    /// A user by number, or by name in `/etc/passwd`. (Names that only a directory service knows
    /// are not found: their number will do.)
    #[must_use]
    pub fn find(system: &dyn System, name: &str) -> Option<Self> {
        let digits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        let id = if digits {
            // The last number means "leave it as it is" to the kernel.
            name.parse().ok().filter(|&id| id != u32::MAX)
        } else {
            let passwd = system.read("/etc/passwd").ok()?;
            let passwd = String::from_utf8_lossy(&passwd).into_owned();
            passwd.lines().find_map(|line| {
                let mut fields = line.split(':');
                let found = !name.is_empty() && fields.next() == Some(name);
                found.then(|| fields.nth(1)?.parse().ok()).flatten()
            })
        };
        id.map(|id| Self {
            id,
            name: name.into(),
        })
    }
}
