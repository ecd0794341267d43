//! The vocabulary of the tests.

pub mod collector;
pub mod link;
pub mod program;
pub mod raw;
pub mod server;
pub mod traced;

use std::time::Duration;

use tokio::time::timeout;

/// The longest that a test waits for anything that is to happen; a wait that runs out fails the test.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for `what`, which the message names.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}
