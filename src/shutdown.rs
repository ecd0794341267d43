//! The wish of the outside that this process ends: SIGTERM and SIGINT.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that the first SIGTERM or SIGINT (Ctrl-C) cancels.
///
/// From this call on these signals no longer end the process by themselves, however many come: who asks for the token
/// obeys it, within a limit. So a subcommand calls this only if it has something to end well. Must be called inside a
/// runtime; the task that waits for the signals lives as long as that.
///
/// # Errors
/// The system does not let the process handle signals.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Duration};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn sigterm_and_sigint_cancel_the_token_and_do_not_end_the_process() {
        for name in ["TERM", "INT"] {
            let token = on_signal().unwrap();
            assert!(!token.is_cancelled());

            let shell = Command::new("sh")
                .args(["-c", &format!("kill -{name} $PPID")])
                .status();
            assert!(shell.unwrap().success());

            let cancelled = timeout(Duration::from_secs(5), token.cancelled()).await;
            assert!(cancelled.is_ok(), "SIG{name} should cancel the token");
        }
    }
}
