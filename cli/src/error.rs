//! What a command reports when it does not succeed: one line, and an exit status.

use std::fmt;
use std::io::Write;
use std::path::Path;

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

    /// SIGINT, SIGTERM or SIGHUP arrived: exit status 130, as shells have it.
    pub(crate) fn interrupted() -> Self {
        Self {
            status: 130,
            message: "interrupted; nothing was left behind".into(),
        }
    }

    /// The same, where it has to be said what became of it.
    pub(crate) fn interrupted_in(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            ..Self::interrupted()
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

/// Prints a line; a full disk or a reader that has gone is a failure, not a panic.
pub(crate) fn print(line: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::failed(format!("cannot print the report: {error}")))
}

/// A file name for people: its control characters are shown, not sent to the terminal.
pub(crate) fn shown(path: &Path) -> String {
    let mut text = String::new();
    for character in path.to_string_lossy().chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_reach_the_terminal_raw() {
        assert_eq!(shown(Path::new("a\u{1b}[31m\nb")), "a\\u{1b}[31m\\nb");
        assert_eq!(shown(Path::new("Füße.txt")), "Füße.txt");
    }
}
