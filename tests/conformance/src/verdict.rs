//! How a check ends.

/// Why a check did not pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// A promise was broken.
    Failed {
        /// What was seen, and where.
        what: String,
        /// Where to look for the cause.
        mend: String,
    },
    /// Nothing was judged.
    NotRun(String),
}

/// What a check returns.
pub(crate) type Verdict<T = ()> = Result<T, Stop>;

/// A failure.
pub(crate) fn failed(mend: &str, what: String) -> Stop {
    Stop::Failed {
        what,
        mend: mend.to_owned(),
    }
}

/// Nothing to judge.
pub(crate) fn not_run<T>(why: impl Into<String>) -> Verdict<T> {
    Err(Stop::NotRun(why.into()))
}

/// Fails the check unless the condition holds: the condition, how to mend, what was seen.
macro_rules! ensure {
    ($condition:expr, $mend:expr, $($what:tt)+) => {
        if !$condition {
            return Err($crate::verdict::failed($mend, format!($($what)+)));
        }
    };
}
pub(crate) use ensure;
