//! What Chit Chat promises, one module per promise; the names of the tests, read top to bottom, are the rules.
//!
//! One crate, so that everything is linked once and shares its support code.

#![allow(
    unreachable_pub,
    reason = "in a crate of tests nothing is reachable from outside, and `pub` says what modules share"
)]

mod support;

/// The report's own session, with the report's logical times.
mod report;

/// Settings come from four layers, and a wrong one is told completely and starts nothing.
mod configuration;

/// Clients in another language, on another implementation of gRPC, need nothing but the proto.
mod python;
