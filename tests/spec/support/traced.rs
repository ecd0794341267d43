//! A process of its own with traces and logs, as short-lived as the test wants it: what it logs and what is left of it
//! when it ends can be seen only from outside, and the OpenTelemetry SDK reads the variables of a process.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use chitchat::{
    config,
    telemetry::{Environment, EventName, Facts, Sending, Telemetry, Tracer, log::Logs},
};
use tokio::sync::mpsc;

use super::within;

/// Set for the process only; also says which file its spans go to.
const FILE: &str = "TRACED_PROCESS_FILE";

/// The process, seen by the test.
pub struct Traced {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<String>,
    log: Vec<String>,
}

/// How it ended.
pub struct Ending {
    /// Everything it logged.
    pub log: Vec<String>,
    /// From the end of its input to its own.
    pub took: Duration,
}

impl Traced {
    /// Starts it, with these `OTEL_*` variables and no others.
    pub fn start<'a>(
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
        file: Option<&PathBuf>,
    ) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("the tests are a program"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OTEL_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args([
                "--exact",
                "telemetry::traced_process",
                "--ignored",
                "--nocapture",
            ])
            .envs(variables)
            .env(FILE, file.map(|path| path.as_os_str()).unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the process starts");
        let (sender, lines) = mpsc::unbounded_channel();
        let errors = BufReader::new(child.stderr.take().expect("piped"));
        // Ends with the process.
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let input = child.stdin.take();
        Self {
            child,
            input,
            lines,
            log: Vec::new(),
        }
    }

    /// So many traces of three spans each.
    pub fn speak(&mut self, times: usize) {
        self.write(&"speak\n".repeat(times));
    }

    /// A message that comes with this `traceparent`, to a server and to a client.
    pub fn receive(&mut self, traceparent: &str) {
        self.write(&format!("{traceparent}\n"));
    }

    fn write(&mut self, lines: &str) {
        let input = self.input.as_mut().expect("open until the end");
        input
            .write_all(lines.as_bytes())
            .expect("the process reads");
    }

    /// Awaits a line of its log.
    pub async fn logs(&mut self, part: &str) -> String {
        within(&format!("{part:?} in the log of the process"), async {
            loop {
                let line = self
                    .lines
                    .recv()
                    .await
                    .unwrap_or_else(|| panic!("no {part:?} in {:?}", self.log));
                self.log.push(line.clone());
                if line.contains(part) {
                    return line;
                }
            }
        })
        .await
    }

    /// Ends its input, and awaits its end.
    pub async fn finish(mut self) -> Ending {
        let asked = Instant::now();
        drop(self.input.take());
        within("the end of the process", async {
            while let Some(line) = self.lines.recv().await {
                self.log.push(line);
            }
        })
        .await;
        let took = asked.elapsed();
        let status = self.child.wait().expect("the process can be awaited");
        assert!(status.success(), "{:?}", self.log);
        Ending {
            log: std::mem::take(&mut self.log),
            took,
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ending {
    /// What it said about its traces.
    pub fn about_traces(&self) -> Vec<&str> {
        self.log
            .iter()
            .map(|line| {
                line.split_once("traces: ")
                    .map_or(line.as_str(), |(_, words)| words)
            })
            .collect()
    }
}

/// The process, seen from inside: a trace, or what a `traceparent` leads to, for each line it reads, and a shutdown at the end of its input.
pub fn run() {
    let Some(file) = std::env::var_os(FILE) else {
        return;
    };
    let _logs = Logs::start(&config::Log::default(), std::io::stderr());
    let config = config::Telemetry {
        file: (!file.is_empty()).then(|| file.into()),
        ..config::Telemetry::default()
    };
    let telemetry = Telemetry::start(&config, "traced", &Environment::of_process());
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.as_str() {
            "speak" => one_trace(&telemetry.tracer()),
            traceparent => {
                telemetry.tracer().order(traceparent, "lobby").end(&MESSAGE);
                telemetry
                    .tracer()
                    .deliver(traceparent, "lobby")
                    .end(&MESSAGE);
            }
        }
    }
    telemetry.shutdown();
}

/// `send`, `order` and `deliver` of one message.
pub fn one_trace(tracer: &Tracer) {
    let send = tracer.send(Sending::Message, "lobby");
    let order = tracer.order(&send.traceparent(), "lobby");
    let deliver = tracer.deliver(&order.traceparent(), "lobby");
    for (step, time) in [(send, 1), (order, 2), (deliver, 3)] {
        step.end(&Facts {
            lamport_time: time,
            ..MESSAGE
        });
    }
}

/// A message of Alex.
pub const MESSAGE: Facts<'static> = Facts {
    event: EventName::Message,
    lamport_time: 1,
    lamport_message_time: None,
    process_id: "3300",
    participant: "Alex",
    message_id: "",
    sequence: 0,
    epoch: "",
    text: "",
    recipients: None,
    replayed: false,
    resumes: 0,
    error: None,
};
