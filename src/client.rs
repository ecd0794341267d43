//! The client side: one [`Session`](session::Session) under the interactive client, the scripted client, the demo and
//! the tests.

pub mod session;
