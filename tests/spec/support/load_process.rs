//! A client that talks like those of [`load`](super::load), in a process of its own: `chitchat chat --json` on pipes.

use std::{
    collections::HashSet,
    process::{ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::{
    checker::{Clock, End, Heard, Step, Transcript},
    load::{Talker, WINDOW},
};

/// The process, and the test's side of its pipes.
pub struct Process {
    /// What talks through it.
    pub talker: Talker,
    id: Pid,
}

/// Starts a process that joins `room` as `name`, and talks.
pub fn talk(url: &str, room: &str, name: &str) -> Process {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chitchat"))
        .args(["chat", "--json", "--server", url, "--room", room])
        .args(["--name", name])
        .env_clear()
        .env("CHITCHAT_CLIENT__BACKLOG", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("chitchat should start");
    let id = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let joined = Step::Joined { epoch: None };
    let talk = Talk {
        input: child.stdin.take(),
        lines,
        child,
        transcript: Transcript {
            client: name.into(),
            room: room.into(),
            steps: vec![joined],
            end: End::Lost,
        },
        number: 0,
        unanswered: HashSet::new(),
    };
    let talker = Talker::spawn(name.into(), |stop, answered| talk.run(stop, answered));
    Process {
        talker,
        id: id.expect("it has begun"),
    }
}

impl Process {
    /// Sends it a signal. It has not been waited for: its id is its own.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.id, signal).expect("the signal is sent");
    }

    /// Kills it: what it did and heard until then.
    pub async fn kill(self) -> Transcript {
        self.signal(Signal::KILL);
        self.talker.killed().await
    }
}

struct Talk {
    child: Child,
    /// `None` once the last is said and answered.
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    transcript: Transcript,
    number: usize,
    /// The texts that were said and not answered yet.
    unanswered: HashSet<String>,
}

impl Talk {
    async fn run(
        mut self,
        stop: CancellationToken,
        answered: watch::Sender<usize>,
    ) -> (Transcript, String) {
        let mut last_said = false;
        // It speaks once it has read its own JOIN.
        let mut joined = false;
        loop {
            while joined && !last_said && self.unanswered.len() < WINDOW {
                last_said = stop.is_cancelled();
                self.say().await;
            }
            if last_said && self.unanswered.is_empty() {
                self.input = None;
            }
            let Ok(Some(line)) = self.lines.next_line().await else {
                break;
            };
            // The last line of a process that was killed may be a part of one.
            if let Ok(json) = serde_json::from_str(&line) {
                joined = true;
                self.hear(json);
                let count = self.number - self.unanswered.len();
                answered.send_replace(count);
            }
        }
        let status = self.child.wait().await.expect("its end can be awaited");
        if self.input.is_none() && status.success() {
            self.transcript.end = End::Left;
        }
        (self.transcript, ExitStatus::to_string(&status))
    }

    async fn say(&mut self) {
        self.number += 1;
        let text = format!("{} {}", self.transcript.client, self.number);
        self.unanswered.insert(text.clone());
        let said = Step::Said { text: text.clone() };
        self.transcript.steps.push(said);
        if let Some(input) = &mut self.input {
            // Fails when it was killed; its output ends then.
            let _ = input.write_all(format!("{text}\n").as_bytes()).await;
        }
    }

    fn hear(&mut self, json: Value) {
        match json["kind"].as_str() {
            Some("disconnected") => {}
            Some("reconnected") => self.transcript.steps.push(Step::Returned {
                epoch: None,
                recovered: json["recovered"] == true,
            }),
            Some("join" | "message" | "leave") => self.read(json),
            _ => panic!("{} did nothing for {json}", self.transcript.client),
        }
    }

    fn read(&mut self, json: Value) {
        let clock = Clock {
            before: None,
            after: json["clock"].as_i64().unwrap_or(0),
        };
        let text = json["text"].as_str().unwrap_or_default();
        let answered = json["own"] == true && self.unanswered.remove(text);
        let message_id = json["message_id"].as_str().unwrap_or_default().to_owned();
        let heard = Heard::Json(json);
        let (sequence, timestamp) = (heard.sequence(), heard.timestamp());
        self.transcript.steps.push(Step::Read { heard, clock });
        if answered {
            self.transcript.steps.push(Step::Acknowledged {
                message_id,
                sequence,
                timestamp,
            });
        }
    }
}
