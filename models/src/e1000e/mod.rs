//! A software Intel 82574L.
