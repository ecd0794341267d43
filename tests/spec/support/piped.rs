//! The program on pipes: `chitchat chat` as another program runs it.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
};

use super::within;

/// A run of the program on pipes.
pub struct Piped {
    child: Child,
    input: Option<ChildStdin>,
    output: Option<Lines<BufReader<ChildStdout>>>,
    errors: BufReader<ChildStderr>,
}

/// `chitchat` with these arguments and nothing in its environment.
pub fn start(arguments: &[&str]) -> Piped {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chitchat"))
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("chitchat should start");
    let output = child.stdout.take().expect("it is piped");
    Piped {
        input: child.stdin.take(),
        output: Some(BufReader::new(output).lines()),
        errors: BufReader::new(child.stderr.take().expect("it is piped")),
        child,
    }
}

impl Piped {
    /// Writes `text` to it.
    pub async fn write(&mut self, text: &str) {
        let input = self.input.as_mut().expect("closed already");
        within("chitchat to read", input.write_all(text.as_bytes()))
            .await
            .expect("it reads");
    }

    /// Writes a line to it.
    pub async fn line(&mut self, text: &str) {
        self.write(&format!("{text}\n")).await;
    }

    /// Ends its input.
    pub fn end_input(&mut self) {
        self.input = None;
    }

    /// Goes away while it writes.
    pub fn end_output(&mut self) {
        self.output = None;
    }

    /// The next line that it writes.
    pub async fn next(&mut self) -> String {
        match self.more().await {
            Some(line) => line,
            None => panic!(
                "chitchat should write another line: {:?}",
                self.ended().await
            ),
        }
    }

    /// The rest of what it writes.
    pub async fn rest(&mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Some(line) = self.more().await {
            rest.push(line);
        }
        rest
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        super::signal(&self.child, signal);
    }

    /// The next line that it writes to standard error.
    pub async fn told(&mut self) -> String {
        let mut line = String::new();
        within("a line of errors", self.errors.read_line(&mut line))
            .await
            .expect("text");
        line.trim_end().to_owned()
    }

    /// Waits for its end: its exit code, and what it wrote to standard error.
    pub async fn ended(&mut self) -> (Option<i32>, String) {
        let mut errors = String::new();
        within("chitchat to end", self.errors.read_to_string(&mut errors))
            .await
            .expect("text");
        let status = within("chitchat to end", self.child.wait())
            .await
            .expect("an exit status");
        (status.code(), errors)
    }

    async fn more(&mut self) -> Option<String> {
        let output = self.output.as_mut().expect("closed already");
        within("a line", output.next_line()).await.expect("text")
    }
}
