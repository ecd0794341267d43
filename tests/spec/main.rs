//! What Chit Chat promises, one module per promise; the names of the tests, read top to bottom, are the rules.
//!
//! One crate, so that everything is linked once and shares its support code. What holds on a simulated network, with
//! simulated crashes, has a program of its own: `tests/simulation`.

#![allow(
    unreachable_pub,
    reason = "in a crate of tests nothing is reachable from outside, and `pub` says what modules share"
)]
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests; in their support code, too, a line number is all that is needed"
)]

mod support;

/// The report's own session, with the report's logical times.
mod report;

/// The rules themselves: time, order, presence, identity, over arbitrary runs of commands.
mod rules;

/// Everybody in a room reads its events in one order, with one logical time each.
mod ordering;

/// Both directions of a stream are independent, and a slow reader harms nobody and misses nothing without being told.
mod streams;

/// Who takes nothing is ended and told how far it came; who takes a little is not, and nobody else notices either.
mod slow_reader;

/// Every departure is announced once, when it is due, and until then its name and id are held.
mod departure;

/// Who returns in time continues where it was, and nobody is left with a part of the truth.
mod resume;

/// A server that is told to stop tells everybody, announces no departures, and is gone within ten seconds.
mod drain;

/// What was acknowledged is there, whatever ended the server, and everybody goes on where they were.
mod durable;

/// A room keeps as much as the settings say; what falls out is told, and never leaves a gap that is not.
mod retention;

/// The journal does what a list would, however the process ends in between.
mod journal;

/// Damage to the history is told: it is never served, and never taken for a history that begins.
mod damage;

/// What is sent twice is stored once, on a stream and outside of one.
mod sending;

/// Reading a room without being in it, live and afterwards.
mod watching;

/// What operators and tools ask a server: is it well, and what does it speak?
mod probes;

/// Whatever comes over the wire gets a clear answer, and harms nobody but its sender.
mod bad_input;

/// Who abuses connections, streams, memory or file descriptors meets a limit, and the others notice nothing.
mod abuse;

/// Settings come from four layers, and a wrong one is told completely and starts nothing.
mod configuration;

/// A person at a terminal reads and writes without the one being in the way of the other.
mod terminal;

/// Through pipes: lines in, lines out, nothing else.
mod pipe;

/// Reading without taking part.
mod reading;

/// One event is one trace whose spans carry its logical times; whatever happens to the traces, chat goes on.
mod telemetry;

/// A participant's session: its clock follows Lamport's rule, and a network that fails costs nobody a message.
mod session;

/// The checker that judges every fault test would notice: each kind of fault, planted in a good run, is caught.
mod checker;

/// Whatever the network does, everybody reads what is stored, each event once.
mod faults;

/// A server or a client that is killed, or stands still, at any moment costs nobody an acknowledged event.
mod crash;

/// A disk that fails ends the server, which says why; nothing that it acknowledged is lost.
mod storage_faults;

/// A scripted client does what its script says, driven by what it reads; whoever runs it learns what went wrong.
mod scripted;

/// Every event of a real conversation is one trace, from the session that sent it to each that received it.
mod traces;

/// A recorded run is read from files and from a Jaeger: whole, each span once, and what is missing is told.
mod recordings;

/// Who sees an event finds its trace: as an address of Jaeger's pages, or its id.
mod trace_links;

/// A recorded run is drawn as it was: each step at its logical time, each message from its sending to its readers.
mod diagram;

/// The page around a drawing, in a real browser.
mod page;

/// The load generator counts what was stored and shown, and says so when a server breaks its promise.
mod bench;

/// Every delivery to every one of many readers is counted and checked; silent participants are weighed.
mod bench_crowd;

/// A load generator may bring its own server, which is gone when it is.
mod bench_own_server;

/// Any server of the protocol can be checked: each fault is told by its rule's name, and by no other.
mod check;

/// The report's session in one process.
mod demo;

/// Clients in another language, on another implementation of gRPC, need nothing but the proto.
mod python;

/// The audit of a recorded run finds nothing in what kept the rules, and names what is missing.
mod audit;

/// Each kind of damage to a recorded run is found, under the right rule's name.
mod audit_damage;

/// The program's verdict on recordings of real conversations, in words, as JSON and as exit code.
mod audit_program;

/// The README says what the program does.
mod readme;
