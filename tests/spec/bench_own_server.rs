//! A server that the load generator starts for itself.

use std::{fs, path::Path, process::Stdio};

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
    within,
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
        "fanout --subscribers 2 --duration 200ms --warm-up 0s --json",
        "connections --connections 5 --hold 0s --json",
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
        let rss = rss.or(figures["memory"]["rss_before_bytes"].as_u64());
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
    let ran = bench("fanout --text-chars 200", directory.path()).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("Limit is 128"), "{}", ran.stderr);
    assert_is_free(directory.path()).await;
}

#[tokio::test]
async fn it_is_stopped_when_a_signal_ends_the_run() {
    for (mode, signal) in [
        ("publish --duration 1m", Signal::INT),
        ("fanout --duration 1m", Signal::TERM),
        ("connections --hold 1m", Signal::INT),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let bench = begin(mode, directory.path()).await;

        support::signal(&bench, signal);

        let ended = within("the run to end", bench.wait_with_output()).await;
        let ended = ended.unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{mode}: {stderr}");
        assert!(
            stderr.contains("chitchat: stopped by a signal"),
            "{mode}: {stderr}"
        );
        assert_is_free(directory.path()).await;
    }
}

#[tokio::test]
async fn that_it_does_not_start_or_dies_is_told() {
    let nowhere = Path::new("/dev/null/history");
    let ran = bench("fanout --duration 1s", nowhere).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    // Its own words come first.
    assert!(ran.stderr.contains("/dev/null/history"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("the server ended by itself"),
        "{}",
        ran.stderr
    );

    let bench = begin("fanout --duration 1m", Path::new("memory")).await;
    support::signal_process(child_of(&bench), Signal::KILL);
    let ended = within("the run to end", bench.wait_with_output()).await;
    let ended = ended.unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("signal: 9 (SIGKILL)"), "{stderr}");
}

/// A run with these arguments, whose server has seen somebody join.
async fn begin(arguments: &str, data: &Path) -> Child {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_chitchat"))
        .arg("bench")
        .args(arguments.split_whitespace())
        .arg("--data")
        .arg(data)
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
    let joined = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("JOIN: ") {
                return;
            }
        }
        panic!("somebody should join");
    };
    within("a JOIN", joined).await;
    bench
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
