//! Packets, built byte by byte.
