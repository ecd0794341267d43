//! What is left to chance, in a way that can be repeated.

use std::{env, time::Duration};

use rand::{RngExt as _, rngs::StdRng};

/// The seed of a test's random choices: `CHITCHAT_TEST_SEED`, or a new one. The test prints it.
pub fn seed() -> u64 {
    variable("CHITCHAT_TEST_SEED").unwrap_or_else(|| rand::random::<u32>().into())
}

/// The number in the environment variable `name`.
pub fn variable(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} should be a number: {value:?}")))
}

/// Lets a time pass that is left to chance: until a fault strikes, or while it lasts. Nothing is waited for by it.
pub async fn time(random: &mut StdRng, less_than: Duration) {
    pass(less_than.mul_f64(random.random())).await;
}

/// Lets a time pass that a fault or a slow line takes. The one place where tests let time pass: what is to happen is
/// awaited by its event.
pub async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
