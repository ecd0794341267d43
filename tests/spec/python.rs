//! Clients in Python, on gRPC's C core, with code generated from the proto by other tools than ours.
//!
//! They need Python with grpcio and grpcio-tools: `CHITCHAT_TEST_PYTHON` names it, otherwise it is `python3`.

use std::{
    env,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use chitchat::wire::v1::{EventType, ServerMessage};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
};

use crate::support::{
    proxy::Proxy,
    server::{start, start_with},
    within,
};

/// The interpreter, set up to find code generated from our proto.
struct Python {
    generated: TempDir,
}

/// `deploy/examples/chat.py`, and the person who types into it and reads what it prints.
struct Example {
    child: Child,
    typing: Option<ChildStdin>,
    printed: Lines<BufReader<ChildStdout>>,
    complaints: Lines<BufReader<ChildStderr>>,
    _generated: TempDir,
}

/// A line that the example prints for an event or a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heard {
    sequence: u64,
    timestamp: i64,
    sender: String,
    text: String,
    /// The example's own clock after it.
    clock: i64,
}

impl Python {
    async fn with_generated_code() -> Self {
        let generated = tempfile::tempdir().unwrap();
        let python = Self { generated };
        let mut protoc = python.command();
        protoc.args(["-m", "grpc_tools.protoc", "-I", "proto"]);
        for kind in ["--python_out", "--grpc_python_out"] {
            let mut option = std::ffi::OsString::from(format!("{kind}="));
            option.push(python.generated.path());
            protoc.arg(option);
        }
        protoc.arg("chitchat/v1/chat.proto");
        assert!(protoc.status().await.unwrap().success());
        python
    }

    /// The interpreter in the root of the repository.
    fn command(&self) -> Command {
        let python = env::var_os("CHITCHAT_TEST_PYTHON").unwrap_or_else(|| "python3".into());
        let mut command = Command::new(python);
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PYTHONPATH", self.generated.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUTF8", "1")
            .kill_on_drop(true);
        command
    }

    /// Starts the example as `name`.
    fn chat(self, name: &str, network: &Proxy) -> Example {
        let mut child = self
            .command()
            .args([
                "deploy/examples/chat.py",
                name,
                network.url().trim_start_matches("http://"),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Python should start");
        Example {
            typing: child.stdin.take(),
            printed: BufReader::new(child.stdout.take().unwrap()).lines(),
            complaints: BufReader::new(child.stderr.take().unwrap()).lines(),
            child,
            _generated: self.generated,
        }
    }
}

impl Example {
    async fn types(&mut self, line: &str) {
        let typing = self.typing.as_mut().expect("input has ended");
        typing
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    async fn prints(&mut self) -> String {
        within("a line of the example", self.printed.next_line())
            .await
            .unwrap()
            .expect("the example should go on")
    }

    async fn hears(&mut self) -> Heard {
        let line = self.prints().await;
        Heard::parse(&line).unwrap_or_else(|| panic!("not an event: {line}"))
    }

    async fn complains(&mut self) -> String {
        within("a complaint of the example", self.complaints.next_line())
            .await
            .unwrap()
            .expect("the example should say why")
    }

    async fn ends(&mut self) -> ExitStatus {
        within("the example to end", self.child.wait())
            .await
            .unwrap()
    }
}

impl Heard {
    /// `#2 [Server @ L=3] Ada: hello (me: max(2, 3) + 1 = 4)`
    fn parse(line: &str) -> Option<Self> {
        let (sequence, rest) = line.strip_prefix('#')?.split_once(" [Server @ L=")?;
        let (timestamp, rest) = rest.split_once("] ")?;
        let (sender, rest) = rest.split_once(": ")?;
        let (text, sum) = rest.rsplit_once(" (me: ")?;
        let (_, clock) = sum.strip_suffix(')')?.rsplit_once(" = ")?;
        Some(Self {
            sequence: sequence.parse().ok()?,
            timestamp: timestamp.parse().ok()?,
            sender: sender.to_owned(),
            text: text.to_owned(),
            clock: clock.parse().ok()?,
        })
    }

    fn is(&self, event: &ServerMessage) -> bool {
        (self.sequence, self.timestamp, &self.sender, &self.text)
            == (
                event.sequence,
                event.timestamp,
                &event.sender_name,
                &event.msg_stream,
            )
    }
}

#[tokio::test]
#[ignore = "needs Python with grpcio and grpcio-tools: .ci/run installs them"]
async fn the_python_example_misses_nothing_and_says_nothing_twice_over_broken_connections() {
    let python = Python::with_generated_code().await;
    let server = start_with(|config| config.server.grace = Duration::from_secs(60)).await;
    let mut bob = server.joined("Bob").await;
    let network = Proxy::start(server.address()).await;
    let mut ada = python.chat("Ada", &network);
    let mut heard = vec![ada.hears().await];
    assert_eq!(bob.next().await.sender_name, "Ada");

    // Cut: what was said meanwhile is read afterwards, what was typed meanwhile is said afterwards.
    network.cut_for_long();
    ada.complains().await;
    for text in ["one", "two"] {
        bob.say(text, 0);
        bob.next().await;
    }
    ada.types("typed while away").await;
    network.mend();
    for _ in 0..3 {
        heard.push(ada.hears().await);
    }
    assert_eq!(bob.next().await.msg_stream, "typed while away");

    // Stored, and the answer lost: it is in the replay, and so is not said again.
    network.hold_answers();
    ada.types("stored, but who knows").await;
    assert_eq!(bob.next().await.msg_stream, "stored, but who knows");
    network.cut_for_long();
    ada.complains().await;
    network.mend();
    heard.push(ada.hears().await);
    ada.types("live again").await;
    heard.push(ada.hears().await);
    assert_eq!(bob.next().await.msg_stream, "live again");

    // The end of input is a LEAVE.
    ada.typing = None;
    assert!(ada.ends().await.success());
    assert_eq!(bob.next().await.r#type(), EventType::Leave);
    let all = server.history("lobby").await;
    let hers: Vec<_> = all.iter().filter(|event| event.sequence > 1).collect();
    assert_eq!(hers.len(), heard.len() + 1, "{heard:?}");
    for (event, heard) in hers.iter().zip(&heard) {
        assert!(heard.is(event), "{heard:?} is not {event:?}");
        assert!(heard.clock > heard.timestamp, "{heard:?}");
    }
    assert!(heard.is_sorted_by(|a, b| a.clock < b.clock), "{heard:?}");
}

#[tokio::test]
#[ignore = "needs Python with grpcio and grpcio-tools: .ci/run installs them"]
async fn the_python_example_says_that_events_are_lost_when_the_history_is_another_one() {
    let python = Python::with_generated_code().await;
    let first = start().await;
    let network = Proxy::start(first.address()).await;
    let mut ada = python.chat("Ada", &network);
    ada.hears().await;
    let bob = first.joined("Bob").await;
    bob.say("we are late", 1_000);
    for _ in 0..2 {
        ada.hears().await;
    }

    network.cut_for_long();
    ada.complains().await;
    ada.types("said between two histories").await;
    let second = start().await;
    network.lead_to(second.address());
    network.mend();

    let warning = ada.prints().await;
    assert_eq!(
        warning,
        "-- some events are lost to us; reading starts anew"
    );
    let (joined, said) = (ada.hears().await, ada.hears().await);
    assert_eq!((joined.sequence, said.sequence), (1, 2));
    assert_eq!(said.text, "said between two histories");
    assert!(said.clock < 1_000, "{said:?} counts from the other history");
}

#[tokio::test]
#[ignore = "needs Python with grpcio and grpcio-tools: .ci/run installs them"]
async fn the_python_example_gives_up_when_its_name_is_held() {
    let python = Python::with_generated_code().await;
    let server = start().await;
    let _ada = server.joined("Ada").await;

    let network = Proxy::start(server.address()).await;
    let mut other = python.chat("ADA", &network);

    let complaint = other.complains().await;
    assert!(complaint.starts_with("-- ALREADY_EXISTS: "), "{complaint}");
    assert_eq!(other.ends().await.code(), Some(1));
}

#[tokio::test]
#[ignore = "needs Python with grpcio and grpcio-tools: .ci/run installs them"]
async fn a_client_on_grpc_s_c_core_can_use_every_call_and_read_every_refusal() {
    let python = Python::with_generated_code().await;
    let server = start().await;

    let mut client = python.command();
    client.args([
        "tests/spec/python/independent.py",
        &server.address().to_string(),
    ]);
    let output = within("the client to end", client.output()).await.unwrap();

    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
}
