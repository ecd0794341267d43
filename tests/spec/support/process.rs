//! Processes beside the test's own, and what can be done to them.

use std::{env, process::Stdio, time::Duration};

use rustix::process::{Pid, kill_process};
use tokio::{
    process::{Child, Command},
    time::sleep,
};
use tonic::transport::Channel;

pub use rustix::process::Signal;

use super::{
    raw::{CHAT, Raw, join},
    server::TestServer,
};

/// Longer than any test; a client process whose test was killed ends by itself.
const LIFE: Duration = Duration::from_secs(60);

/// Where the client process finds the server.
const SERVER: &str = "CHITCHAT_TEST_SERVER";
/// What its participant is called.
const NAME: &str = "CHITCHAT_TEST_NAME";

/// Starts a process whose participant joins the lobby as `name` and stays. It runs the ignored test `program` of this
/// crate, which calls [`be_a_participant`].
pub fn participant(server: &TestServer, name: &str, program: &str) -> Child {
    Command::new(env::current_exe().expect("the tests are a program"))
        .args(["--ignored", "--exact", program])
        .env(SERVER, server.url())
        .env(NAME, name)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("a client process should start")
}

/// What the client process does. In any other process: nothing.
pub async fn be_a_participant() {
    let (Ok(server), Ok(name)) = (env::var(SERVER), env::var(NAME)) else {
        return;
    };
    let channel = Channel::from_shared(server).expect("an address");
    let channel = channel.connect().await.expect("a connection");
    let mut raw = Raw::open(channel, CHAT).await;
    raw.send(join(&name));
    raw.next().await;
    sleep(LIFE).await;
}

/// Sends `signal` to `child`.
pub fn signal(child: &Child, signal: Signal) {
    let id = child.id().expect("the process should run");
    let id = i32::try_from(id).ok().and_then(Pid::from_raw);
    kill_process(id.expect("a process id"), signal).expect("the signal should be sent");
}
