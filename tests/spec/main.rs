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

/// One event is one trace whose spans carry its logical times; whatever happens to the traces, chat goes on.
mod telemetry;

/// A participant's session: its clock follows Lamport's rule, and a network that fails costs nobody a message.
mod session;
