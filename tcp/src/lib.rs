//! Sans-IO TCP sender that shares user pages with the NIC where they fit its gather list.
#![no_std]
