//! Where a recorded run comes from: files of OTLP JSON, or a Jaeger.
//!
//! ```text
//!  file     one after the other, document by document  ┐
//!  jaeger   window by window, from the newest back     ├─► otlp ──► gathering ──► Recording ──► selection
//!  (http)                                              ┘   spans    each once     + lost        what was asked for
//! ```

pub mod file;
mod gathering;
mod http;
pub mod jaeger;
mod otlp;
pub mod selection;

use crate::client::render::clean;

/// A source that cannot be used. What to do about it is part of the words.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {words}")]
pub struct Unusable {
    /// The file (with its line and column, where the fault has a place), or the address.
    pub origin: String,
    /// What is wrong.
    pub words: String,
}

impl Unusable {
    /// What comes of a file or a peer does not get to the terminal as it is.
    fn new(origin: &str, words: &str) -> Self {
        Self {
            origin: clean(origin).into_owned(),
            words: clean(words).into_owned(),
        }
    }
}

/// How far a source has been read.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// What part of it, of 1; none where nobody can know.
    pub done: Option<f64>,
    /// Spans so far.
    pub spans: u64,
}
