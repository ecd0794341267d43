//! Chit Chat: a chat service whose history can be proven.

pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod feed;
pub mod journal;
pub mod order;
pub mod room;
pub mod server;
pub mod shutdown;
pub mod telemetry;
pub mod wire;
