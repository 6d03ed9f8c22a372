//! A server that is killed in the middle of traffic.
