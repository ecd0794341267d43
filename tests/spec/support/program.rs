//! The program itself, run to its end.

use std::{ffi::OsStr, path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

/// The longest that a run of the program may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A run of `chitchat`, with no environment but what is given.
pub struct Program(Command);

/// A run that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code.
    pub code: i32,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

/// `chitchat` with these arguments.
pub fn chitchat<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chitchat"));
    command
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Program(command)
}

impl Program {
    /// With this variable in its environment.
    pub fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// With one more argument.
    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.0.arg(argument);
        self
    }

    /// With more arguments.
    pub fn arguments<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.0.args(arguments);
        self
    }

    /// With this as its current directory.
    pub fn inside(mut self, directory: impl AsRef<Path>) -> Self {
        self.0.current_dir(directory);
        self
    }

    /// Runs it to its end.
    pub async fn run(mut self) -> Finished {
        let output = timeout(LIMIT, self.0.output())
            .await
            .expect("chitchat should end by itself")
            .expect("chitchat should start");
        Finished {
            code: output
                .status
                .code()
                .expect("chitchat should not end by a signal"),
            stdout: String::from_utf8(output.stdout).expect("standard output should be UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("standard error should be UTF-8"),
        }
    }
}
