//! The specification: what the service promises, one file per promise.

// A test that fails says where; what it was about is in its message.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

/// One event is one trace whose spans carry its logical times; chat never waits for telemetry.
mod telemetry;

mod support;
