//! A client in a process of its own, which can be killed or frozen.

use std::{env, future::pending, process::Stdio, time::Duration};

use tokio::{
    process::{Child, Command},
    time::timeout,
};
use tonic::transport::Channel;

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
    let _ = timeout(LIFE, pending::<()>()).await;
}
