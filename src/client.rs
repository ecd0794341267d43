//! The client side: one [`Session`](session::Session) under the interactive client, the scripted client, the demo and
//! the tests.

mod connection;
pub mod reading;
pub mod render;
pub mod session;
pub(crate) mod stdio;
pub mod terminal;
pub(crate) mod text;

pub use connection::{AddressError, service};
