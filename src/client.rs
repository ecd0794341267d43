//! The client side: one [`Session`](session::Session) under the interactive client, the scripted client, the demo and
//! the tests.

mod connection;
pub mod session;

pub use connection::{AddressError, service};
