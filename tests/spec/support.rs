//! What the tests are written with.

pub mod collector;
pub mod traced;

use std::time::Duration;

/// How long a test waits for something that is bound to happen, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits what must happen; says what did not.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}
