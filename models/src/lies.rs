//! The kinds of lies of a device: an enum, the sets of its values, and how often each was told.

/// Makes them. The enum is called `Lie`, the sets `Lies`, the counts `LieCounters`.
macro_rules! lies {
    (
        $(#[$about:meta])*
        pub enum Lie {
            $($(#[$doc:meta])* $name:ident,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Lie {
            $($(#[$doc])* $name,)*
        }

        /// How many lies there are.
        pub(crate) const COUNT: usize = [$(stringify!($name),)*].len();

        impl Lie {
            /// All of them, in order.
            pub const ALL: [Self; COUNT] = [$(Self::$name,)*];

            pub(crate) const fn index(self) -> usize {
                self as usize
            }

            const fn bit(self) -> u64 {
                1 << self as u64
            }
        }

        /// A set of [`Lie`]s.
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct Lies(u64);

        impl Lies {
            /// Every lie.
            #[must_use]
            pub const fn all() -> Self {
                Self((1 << COUNT) - 1)
            }

            /// No lie.
            #[must_use]
            pub const fn none() -> Self {
                Self(0)
            }

            /// This one alone.
            #[must_use]
            pub const fn only(lie: Lie) -> Self {
                Self(lie.bit())
            }

            /// These and `lie`.
            #[must_use]
            pub const fn with(self, lie: Lie) -> Self {
                Self(self.0 | lie.bit())
            }

            /// These but not `lie`.
            #[must_use]
            pub const fn without(self, lie: Lie) -> Self {
                Self(self.0 & !lie.bit())
            }

            /// Whether `lie` is among them.
            #[must_use]
            pub const fn contains(self, lie: Lie) -> bool {
                self.0 & lie.bit() != 0
            }

            /// From a list.
            pub(crate) const fn of(list: &[Lie]) -> Self {
                let mut set = Self::none();
                let mut rest = list;
                while let [lie, others @ ..] = rest {
                    set = set.with(*lie);
                    rest = others;
                }
                set
            }

            pub(crate) const fn and(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }

            pub(crate) const fn or(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            pub(crate) const fn is_empty(self) -> bool {
                self.0 == 0
            }

            pub(crate) const fn len(self) -> u32 {
                self.0.count_ones()
            }

            /// The lies in the set, in order.
            pub fn iter(self) -> impl Iterator<Item = Lie> {
                Lie::ALL.into_iter().filter(move |lie| self.contains(*lie))
            }
        }

        impl Default for Lies {
            /// All of them.
            fn default() -> Self {
                Self::all()
            }
        }

        impl std::fmt::Debug for Lies {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_set().entries(self.iter()).finish()
            }
        }

        /// How often each lie was told since the device was made. A lie that lasts is counted once for
        /// the time that it lasts; one in memory when it is written, whether that faults or not.
        #[derive(Clone, PartialEq, Eq)]
        pub struct LieCounters([u64; COUNT]);

        impl LieCounters {
            /// How often `lie` was told.
            #[must_use]
            pub fn told(&self, lie: Lie) -> u64 {
                self.0.get(lie.index()).copied().unwrap_or(0)
            }

            /// How many lies were told.
            #[must_use]
            pub fn total(&self) -> u64 {
                self.0.iter().sum()
            }

            pub(crate) fn count(&mut self, lie: Lie) {
                if let Some(count) = self.0.get_mut(lie.index()) {
                    *count += 1;
                }
            }
        }

        impl Default for LieCounters {
            /// All zero.
            fn default() -> Self {
                Self([0; COUNT])
            }
        }

        impl std::fmt::Debug for LieCounters {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let told = Lie::ALL.into_iter().filter(|lie| self.told(*lie) > 0);
                f.debug_map()
                    .entries(told.map(|lie| (lie, self.told(lie))))
                    .finish()
            }
        }
    };
}

pub(crate) use lies;
