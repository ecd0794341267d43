//! What is left to chance, in a way that can be repeated.

use std::env;

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
