//! The causality of a recorded run: read from its spans, proved, drawn.
//!
//! ```text
//!  source/  ──►  Recording  ──►  run  ──►  audit    which of Lamport's rules, and of ours, the run kept
//!  OTLP files,   the steps,      linked    diagram  a space-time diagram by logical time
//!  Jaeger        as they came
//! ```
//!
//! A *step* is one span of ours: the sending of a message, its ordering by the service, its delivery to one participant
//! ([`step::Step`]). A *run* is all that was recorded, each step linked to the one that caused it ([`run::Run`]).

pub mod audit;
pub mod diagram;
pub mod happened_before;
pub mod lost;
pub mod run;
pub mod source;
pub mod step;
