//! The vocabulary of the tests.

pub mod browser;
pub mod chance;
pub mod checker;
pub mod client_process;
pub mod collector;
pub mod crashing;
pub mod directory;
pub mod disk;
pub mod drawn;
pub mod fake;
pub mod faulty;
pub mod hostile;
pub mod http2;
pub mod jaeger;
pub mod listener;
pub mod load;
pub mod load_process;
pub mod participant;
pub mod piped;
pub mod program;
pub mod proxy;
pub mod raw;
pub mod recorded;
pub mod server;
pub mod server_process;
pub mod spans;
pub mod student;
pub mod traced;
pub mod tty;

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

/// Sends `signal` to a program that runs.
pub fn signal(child: &tokio::process::Child, signal: rustix::process::Signal) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid
        .and_then(rustix::process::Pid::from_raw)
        .expect("it runs");
    rustix::process::kill_process(pid, signal).expect("the signal is sent");
}

/// Sends `signal` to the process `pid`, which some program of ours has started and which runs.
pub fn signal_process(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("it is an id");
    rustix::process::kill_process(pid, signal).expect("the signal is sent");
}
