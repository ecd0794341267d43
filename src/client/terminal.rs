//! x
mod command;
