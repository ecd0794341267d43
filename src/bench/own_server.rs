//! A server of the run's own: a child process that is started for it, measured, and stopped.

use std::{
    env,
    net::{Ipv4Addr, TcpListener},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};
use tonic_health::pb::health_check_response::ServingStatus;

use super::{Target, descriptors};
use crate::{client::reading, config::Entry, shutdown};

/// How long it may take to serve; then the run fails. A long history is opened in milliseconds.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is asked meanwhile.
const START_PAUSE: Duration = Duration::from_millis(20);

/// How long it may take to stop; then it is killed. Source: with its default settings it is gone within ten seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(12);

/// How much later than its connections a server that dies may be seen to have ended.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// What differs from its defaults, unless somebody has set it: nobody is too fast, and its log costs nothing.
const SETTINGS: [(&str, &str); 2] = [("limits.rate", "0"), ("log.level", "warn")];

/// Starts `chitchat serve --data DATA` on a free port of 127.0.0.1, hands it to `measure`, and stops it, whatever becomes
/// of that: Ctrl-C and SIGTERM stop the server first. (SIGKILL cannot be heard; it leaves the server behind.)
///
/// It has the `settings` of this process, wherever they come from, and its environment.
///
/// # Errors
/// The server does not start, or ends by itself; a signal came; `measure` fails.
pub async fn with_own_server<R>(
    data: &str,
    settings: &[Entry],
    measure: impl AsyncFnOnce(Target) -> anyhow::Result<R>,
) -> anyhow::Result<R> {
    let stop = shutdown::on_signal()?;
    // The server's connections are as many as ours.
    descriptors::raise()?;
    let (mut server, url) = start(data, settings)?;
    let pid = server.id();
    let measured = tokio::select! {
        () = stop.cancelled() => Err(stopped()),
        measured = async {
            serves(&url).await?;
            measure(Target { url, pid }).await
        } => measured,
        _ = server.wait() => Err(anyhow!("there is nothing to measure")),
    };
    let measured = match measured {
        // Ctrl-C at a terminal reaches the server too, and its last words may come first.
        Err(_) if stop.is_cancelled() => Err(stopped()),
        Err(error) => Err(with_its_end(&mut server, error).await),
        measured => measured,
    };
    end(server).await;
    measured
}

/// `error` came of a server that is about to end, or of one that goes on.
async fn with_its_end(server: &mut Child, error: anyhow::Error) -> anyhow::Error {
    match timeout(END_TIMEOUT, server.wait()).await {
        Ok(Ok(ended)) => error.context(format!("the server ended by itself ({ended})")),
        Ok(Err(_)) | Err(_) => error,
    }
}

fn stopped() -> anyhow::Error {
    anyhow!("stopped by a signal")
}

fn start(data: &str, settings: &[Entry]) -> anyhow::Result<(Child, String)> {
    let address = free_address().context("there is no free port on 127.0.0.1")?;
    let program = env::current_exe().context("cannot tell which program this is")?;
    let server = Command::new(&program)
        .args(["serve", "--listen", &address, "--data", data])
        .envs(variables(settings))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    Ok((server, format!("http://{address}")))
}

/// A port that nobody has now. Should somebody take it before the server does, the server says so and ends.
fn free_address() -> std::io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.to_string())
}

/// The settings that somebody has given, and [`SETTINGS`], as variables of the environment.
fn variables(settings: &[Entry]) -> impl Iterator<Item = (String, String)> {
    settings.iter().filter_map(|entry| {
        let own = SETTINGS.iter().find(|(key, _)| *key == entry.key);
        let value = match (&entry.value, own) {
            (_, Some((_, value))) if entry.origin == "default" => (*value).to_owned(),
            (_, None) if entry.origin == "default" => return None,
            (serde_json::Value::Null, _) => return None,
            (serde_json::Value::String(text), _) => text.clone(),
            (other, _) => other.to_string(),
        };
        let name = entry.key.to_uppercase().replace('.', "__");
        Some((format!("CHITCHAT_{name}"), value))
    })
}

/// Waits until it does.
async fn serves(url: &str) -> anyhow::Result<()> {
    let asking = async {
        while reading::health(url, START_TIMEOUT).await.ok() != Some(ServingStatus::Serving) {
            sleep(START_PAUSE).await;
        }
    };
    if timeout(START_TIMEOUT, asking).await.is_err() {
        bail!("the server that was started does not serve after {START_TIMEOUT:?}");
    }
    Ok(())
}

/// Stops it as an operator would, and by force if it takes too long.
async fn end(mut server: Child) {
    let pid = server
        .id()
        .and_then(|id| Pid::from_raw(id.try_into().ok()?));
    // It has no id once it has ended.
    let Some(pid) = pid else {
        return;
    };
    // It has not been waited for, so the id is its own still.
    let _ = kill_process(pid, Signal::TERM);
    if timeout(STOP_TIMEOUT, server.wait()).await.is_err() {
        let _ = server.kill().await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(key: &'static str, value: Value, origin: &str) -> Entry {
        Entry {
            key,
            value,
            origin: origin.into(),
        }
    }

    #[test]
    fn what_somebody_has_set_is_the_server_s_too_and_otherwise_nothing_limits_or_logs() {
        let given = "chitchat.toml:3";
        let settings = [
            entry("server.grace", json!("7s"), given),
            entry("limits.rate", json!(1_000), "default"),
            entry("limits.rooms", json!(5), given),
            entry("limits.text_chars", json!(128), "default"),
            entry("telemetry.file", Value::Null, given),
            entry("log.level", json!("info"), given),
        ];
        let variables: Vec<_> = variables(&settings).collect();
        let variables: Vec<_> = (variables.iter())
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            variables,
            [
                ("CHITCHAT_SERVER__GRACE", "7s"),
                ("CHITCHAT_LIMITS__RATE", "0"),
                ("CHITCHAT_LIMITS__ROOMS", "5"),
                ("CHITCHAT_LOG__LEVEL", "info"),
            ]
        );
    }
}
