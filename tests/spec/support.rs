//! The vocabulary of the tests.

pub mod program;
