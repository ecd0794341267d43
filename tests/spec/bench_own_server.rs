//! A server that the load generator starts for itself.

use std::{
    fs,
    path::Path,
    process::{Output, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

use crate::support::{
    self,
    program::{Finished, chitchat},
    server_process::ServerProcess,
    tty, within,
};

/// `chitchat bench` with these arguments, and its server's history there.
async fn bench(arguments: &str, data: &Path) -> Finished {
    let words = ["bench"].into_iter().chain(arguments.split_whitespace());
    let program = chitchat(words.map(Path::new).chain([Path::new("--data"), data]));
    program.run().await
}

/// Nobody holds the history in `data`, and it is whole.
async fn assert_is_free(data: &Path) {
    let server = ServerProcess::on(data).await;
    server.end(Signal::TERM).await;
}

#[tokio::test]
async fn every_mode_can_bring_its_own_server_which_is_measured_and_gone_at_the_end() {
    for mode in [
        "publish --streams 2 --messages 20 --warm-up 0s --json",
        "echo --messages 20 --warm-up 0s --json",
    ] {
        let ran = bench(mode, Path::new("memory")).await;

        assert_eq!(
            (ran.code, ran.stderr.as_str()),
            (0, ""),
            "{mode}: {}",
            ran.stdout
        );
        let figures: Value = serde_json::from_str(&ran.stdout).expect("one object");
        let rss = figures["server_process"]["rss_bytes"].as_u64();
        assert!(rss > Some(1 << 20), "{figures}");
        let address = figures["server"].as_str().unwrap();
        let address = address.strip_prefix("http://").unwrap();
        let connected = TcpStream::connect(address).await;
        assert!(connected.is_err(), "nobody should listen: {figures}");
    }
}

#[tokio::test]
async fn its_history_is_where_it_was_asked_for_and_closed() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("history");

    let ran = bench("echo --messages 20 --warm-up 0s", &data).await;

    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let files: Vec<_> = fs::read_dir(&data).unwrap().flatten().collect();
    let mut names: Vec<_> = files.iter().map(|file| file.file_name()).collect();
    names.sort();
    assert_eq!(
        names,
        ["chitchat.db", "chitchat.lock"],
        "no log is left beside it"
    );
    assert_is_free(&data).await;
}

#[tokio::test]
async fn it_has_the_settings_that_the_load_generator_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("chitchat.toml");
    fs::write(&file, "[limits]\ntext_chars = 20\ntext_bytes = 20").unwrap();
    let arguments = ["bench", "echo", "--data", "memory", "--config"].map(Path::new);

    let ran = chitchat(arguments.into_iter().chain([file.as_path()]))
        .run()
        .await;

    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("Limit is 20"), "{}", ran.stderr);
}

#[tokio::test]
async fn it_is_stopped_when_the_run_fails() {
    let directory = tempfile::tempdir().unwrap();
    let ran = bench("publish --text-chars 200", directory.path()).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("Limit is 128"), "{}", ran.stderr);
    assert_is_free(directory.path()).await;
}

#[tokio::test]
async fn it_is_stopped_when_a_signal_ends_the_run() {
    for signal in [Signal::INT, Signal::TERM] {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().to_str().unwrap();
        let arguments = ["bench", "publish", "--data", data, "--duration", "1m"];
        let mut terminal = tty::run(&arguments).start();
        terminal.see(" % ").await;

        terminal.signal(signal);

        terminal.see("chitchat: stopped by a signal").await;
        assert_eq!(terminal.ended().await, Some(1));
        assert_is_free(directory.path()).await;
    }
}

#[tokio::test]
async fn that_it_does_not_start_or_dies_is_told() {
    let nowhere = Path::new("/dev/null/history");
    let ran = bench("publish --duration 1s", nowhere).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    // Its own words come first.
    assert!(ran.stderr.contains("/dev/null/history"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("the server ended by itself"),
        "{}",
        ran.stderr
    );

    let killed = run_and_kill_its_server().await;
    assert_eq!(killed.status.code(), Some(1));
    let stderr = String::from_utf8(killed.stderr).unwrap();
    assert!(stderr.contains("signal: 9 (SIGKILL)"), "{stderr}");
}

/// A run that publishes on a schedule until its server is killed, once there is one message.
async fn run_and_kill_its_server() -> Output {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_chitchat"))
        .args(["bench", "publish", "--data", "memory", "--duration", "1m"])
        .env_clear()
        // The server logs each event, so that one can tell when it runs.
        .env("CHITCHAT_LOG__LEVEL", "info")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let stderr = bench.stderr.as_mut().expect("it is piped");
    let mut lines = BufReader::new(stderr).lines();
    let talks = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("Message from") {
                return;
            }
        }
        panic!("there should be a message");
    };
    within("a message", talks).await;
    support::signal_process(child_of(&bench), Signal::KILL);
    within("the run to end", bench.wait_with_output())
        .await
        .unwrap()
}

/// The one process that `parent` has started.
fn child_of(parent: &Child) -> i32 {
    let parent = parent.id().expect("it runs");
    let threads = fs::read_dir(format!("/proc/{parent}/task")).unwrap();
    let children = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .collect::<String>();
    children.trim().parse().expect("one child")
}
