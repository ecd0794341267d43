//! What becomes of people, programs and history when the server is killed, started again, or taken away.

use std::{process::Stdio, time::Instant};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::{SERVER, Visitor, attached::Attached, system::System, within};

const LOST: &str = "Connection lost (";
const BACK: &str = "Back. Nothing was missed.";

/// `docker compose kill -s KILL server && docker compose up -d`, and a restart, while somebody is attached.
pub async fn everybody_goes_on(system: &System) {
    // Never comes back: with its departure the grace of all who were there is over.
    let lost = Visitor::join("Lost").await;
    let mut user = Attached::attach_and_see("Enter your name: ").await;
    user.types("Eve\r").await;
    user.sees("Participant Eve joined Chit Chat").await;
    let before = history(system).await;

    let killed = Instant::now();
    system.compose("kill -s KILL server").await;
    drop(lost);
    user.sees(LOST).await;
    user.types("said to nobody\r").await;
    let start = system.compose("up --detach");
    let (_, back) = tokio::join!(start, async {
        user.sees(BACK).await;
        killed.elapsed()
    });
    println!(
        "killed; the attached client was back after {back:.1?}, all were up after {:.1?}",
        killed.elapsed()
    );
    user.sees("Eve: said to nobody").await;
    user.sees("Participant Lost left Chit Chat").await;
    user.types("ping\r").await;
    user.sees("Guide: pong, Eve").await;

    let after = history(system).await;
    let new = went_on(&before, &after);
    assert_eq!(of(new, "Guide", "join") + of(new, "Guide", "leave"), 0);
    assert_eq!(of(new, "Eve", "join") + of(new, "Eve", "leave"), 0);
    assert_eq!(of(new, "Lost", "leave"), 1);
    let said = new.iter().filter(|event| event["text"] == "said to nobody");
    assert_eq!(said.count(), 1);

    system.compose("restart server").await;
    user.sees_times(BACK, 2).await;
    assert_eq!(user.count(LOST), 2, "one line for each time");
    user.types("still here?\r").await;
    user.sees("Eve: still here?").await;
    let last = history(system).await;
    let newest = went_on(&after, &last);
    assert_eq!(newest.len(), 1, "{newest:#?}");

    user.types("exit\r").await;
    user.ends().await;
}

/// `docker compose down && docker compose up -d`, then the same with `--volumes`, seen by a client outside.
pub async fn history_lasts_as_long_as_its_volume(system: &System) {
    let mut outsider = Outsider::join("Outsider").await;
    let before = history(system).await;

    system.compose("down").await;
    system.compose("up --detach").await;
    let back = outsider.hears("reconnected").await;
    assert_eq!(back["recovered"], true, "{back}");
    let after = history(system).await;
    let new = went_on(&before, &after);
    assert_eq!(
        of(new, "Outsider", "join") + of(new, "Outsider", "leave"),
        0
    );
    assert_eq!(of(new, "Guide", "leave"), 1, "it was stopped, and has left");
    assert_eq!(of(new, "Guide", "join"), 1);

    system.compose("down --volumes").await;
    system.compose("up --detach").await;
    let back = outsider.hears("reconnected").await;
    assert_eq!(
        (&back["recovered"], &back["new_history"]),
        (&false.into(), &true.into()),
        "{back}"
    );
    let anew = history(system).await;
    unbroken(&anew);
    assert_eq!(of(&anew, "Outsider", "join"), 1);
    assert!(!anew.contains(&after[0]), "{anew:#?}");
}

/// All events of the lobby, as the image's own program tells them.
async fn history(system: &System) -> Vec<Value> {
    let told = system
        .compose("exec -T server /chitchat history --json")
        .await;
    let events = told.lines().map(serde_json::from_str);
    events.collect::<Result<_, _>>().unwrap()
}

/// The new events of an unbroken history that begins as it was `before`.
fn went_on<'a>(before: &[Value], after: &'a [Value]) -> &'a [Value] {
    unbroken(after);
    assert!(after.starts_with(before), "{before:#?}\n{after:#?}");
    &after[before.len()..]
}

/// Sequences count 1, 2, 3, and logical time rises.
fn unbroken(history: &[Value]) {
    let mut last = 0;
    for (event, place) in history.iter().zip(1_u64..) {
        assert_eq!(event["sequence"], place, "{history:#?}");
        let time = event["logical_time"].as_i64().unwrap();
        assert!(time > last, "{history:#?}");
        last = time;
    }
}

/// How often `name` did that.
fn of(events: &[Value], name: &str, kind: &str) -> usize {
    let its = |event: &&Value| event["sender_name"] == name && event["kind"] == kind;
    events.iter().filter(its).count()
}

/// A client outside the containers, which comes back by itself.
struct Outsider {
    lines: Lines<BufReader<ChildStdout>>,
    /// Its input stays open as long as this: at its end it would leave.
    _child: Child,
}

impl Outsider {
    async fn join(name: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_chitchat"))
            .args(["chat", "--json", "--name", name, "--server", SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut outsider = Self {
            lines: BufReader::new(stdout).lines(),
            _child: child,
        };
        outsider.hears("join").await;
        outsider
    }

    /// Reads up to the next line of that kind.
    async fn hears(&mut self, kind: &str) -> Value {
        let reading = async {
            loop {
                let line = self.lines.next_line().await.unwrap();
                let line = line.expect("the client should go on");
                let line: Value = serde_json::from_str(&line).unwrap();
                if line["kind"] == kind {
                    return line;
                }
            }
        };
        within(kind, reading).await
    }
}
