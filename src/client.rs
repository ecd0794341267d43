//! The client side: one [`Session`](session::Session) under the interactive client, the scripted client, the demo and
//! the tests.

pub(crate) mod backoff;
mod connection;
pub mod pipe;
pub mod play;
pub mod reading;
pub mod render;
pub mod script;
pub mod session;
pub(crate) mod status;
pub(crate) mod stdio;
pub mod terminal;

pub(crate) use connection::endpoint;
pub use connection::{AddressError, Dial, service};

/// Whether a session ended well.
///
/// # Errors
/// It did not: why, for a person.
fn verdict(ending: &session::Ending) -> anyhow::Result<()> {
    match ending {
        session::Ending::Refused(status) => {
            anyhow::bail!(
                "the server ended the session: {}",
                render::clean(status.message())
            )
        }
        session::Ending::Abandoned { unacknowledged } if *unacknowledged > 0 => anyhow::bail!(
            "left without the server's word: {unacknowledged} message(s) may not have been stored"
        ),
        session::Ending::Left | session::Ending::Abandoned { .. } | session::Ending::Crashed => {
            Ok(())
        }
    }
}
