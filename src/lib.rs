//! Chit Chat: a chat service whose history can be proven.
//!
//! People and programs join a room over gRPC, talk and leave. Every event gets a Lamport timestamp; everybody sees the
//! same events in the same order, each once; and every message is one trace that carries the logical time of each step.
//!
//! # The journey of one message
//!
//! ```text
//!  client/ ──gRPC──► server/ ──► order ──► room ──► journal ──► feed ──► server/ ──gRPC──► client/
//!  Session           decode,     one line  a pure   stored,     shared   cursors           Session
//!                    admit       of        fold:    then        log of   into it
//!                                commands  the      visible     encoded
//!                                          rules                frames
//! ```
//!
//! 1. A [`client::session::Session`] ticks its [`clock::LamportClock`], begins the trace ([`telemetry::Tracer::send`]) and
//!    sends a message of [`wire::v1`] on its stream.
//! 2. [`server`] decodes it, begins the `order` step and submits a [`room::Command`] to the [`order`], without waiting.
//! 3. The order takes all that waits as one batch. For each command, [`room::Service::apply`] says what becomes of it: an
//!    event with its sequence and logical time, a refusal, or nothing new.
//! 4. The events are encoded once ([`wire::Frame`]) and stored in the [`journal`]. Only then is the sender answered, and
//!    the room's [`feed`] shows them.
//! 5. Each subscriber's response body is a cursor into that feed; woken, it sends all there is, as shared bytes.
//! 6. Each receiving session merges the event's time into its own clock and ends the trace with a `deliver` step.
//!
//! # Where to look
//!
//! | module | what lives there |
//! |---|---|
//! | [`room`] | the rules, and nothing else: a pure fold over commands |
//! | [`order`] | one order for all commands; the only owner of the state |
//! | [`journal`], [`feed`] | the history; its recent part as ready frames |
//! | [`server`] | gRPC: streams, unary calls, admission, health, drain |
//! | [`client`] | the session, and the clients over it |
//! | [`mod@bench`] | the load generator |
//! | [`causality`] | a recorded run: read from its spans, proved, drawn |
//! | [`check`] | the assignment's rules, against any server |
//! | [`wire`], [`clock`] | the protocol's types; the Lamport clock |
//! | [`telemetry`] | traces and logs |
//! | [`config`], [`cli`], [`shutdown`] | settings, subcommands, signals |

pub mod bench;
pub mod causality;
pub mod check;
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
