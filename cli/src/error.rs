//! What a command reports when it does not succeed: one line, and an exit status.

use std::fmt;

/// A failure with its exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    message: String,
}

impl Failure {
    /// The user asked for something that cannot be: exit status 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            status: 2,
            message: message.into(),
        }
    }

    /// It was done, and something is not as it must be: exit status 1.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            status: 1,
            message: message.into(),
        }
    }

    /// SIGINT or SIGTERM arrived: exit status 130, as shells have it.
    pub(crate) fn interrupted() -> Self {
        Self {
            status: 130,
            message: "interrupted; nothing was left behind".into(),
        }
    }

    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        self.status
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever a system put into its message.
        f.write_str(&self.message.replace('\n', " "))
    }
}
