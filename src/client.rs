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

use std::time::Duration;

use session::Ending;

pub(crate) use connection::endpoint;
pub use connection::{AddressError, Dial, service};

/// How long to wait before something is said again that came too fast for the service.
///
/// Source: so short that at any rate there is hardly a pause, so long that 20 refusals a second are no load.
const TOO_FAST_PAUSE: Duration = Duration::from_millis(50);

/// Whether a session ended well.
///
/// # Errors
/// It did not: why, for a person.
fn verdict(ending: &Ending) -> anyhow::Result<()> {
    anyhow::ensure!(ending.is_good(), "the session ended: {ending}");
    Ok(())
}
