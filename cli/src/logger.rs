//! What the rooms below log: errors go to standard error. They say what an error number cannot, for
//! example which limit on locked memory would do.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries of others have their own ideas of what is worth a warning.
        metadata.target().starts_with("pagewire")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_lowercase();
            // Nobody may be reading.
            let _ = writeln!(std::io::stderr(), "pagewire: {level}: {}", record.args());
        }
    }

    fn flush(&self) {}
}

/// From here on errors are shown. Warnings are for whoever writes a driver.
pub(crate) fn start() {
    // It fails only if there is a logger already.
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(LevelFilter::Error);
    }
}
