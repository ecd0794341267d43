//! A participant with telemetry of its own, as a process has.

use chitchat::{
    client::session::{Options, Session, Update},
    config,
    telemetry::Telemetry,
};

use super::within;

/// In a room, until it leaves, crashes, or is ended.
pub struct Participant {
    pub session: Session,
    telemetry: Telemetry,
}

impl Participant {
    /// Joins the lobby of `server`, without its past.
    pub async fn join(server: String, telemetry: Telemetry, name: &str) -> Self {
        let client = config::Client {
            server,
            backlog: 0,
            ..config::Client::default()
        };
        let options = Options {
            tracer: telemetry.tracer(),
            ..Options::new(&client, name)
        };
        let session = Session::join(options).await.expect("the room is open");
        Self { session, telemetry }
    }

    pub async fn say(&self, text: &str) {
        self.session.say(text).await.expect("the session goes on");
    }

    /// Reads until it hears `text`.
    pub async fn hears(&mut self, text: &str) {
        loop {
            let update = within(text, self.session.next()).await;
            match update.expect("the session goes on") {
                Update::Event(heard) | Update::Notice(heard)
                    if heard.message.msg_stream.contains(text) =>
                {
                    return;
                }
                Update::Ended(ending) => panic!("ended by {ending:?} before {text:?}"),
                _ => {}
            }
        }
    }

    /// Reads until its connection is lost.
    pub async fn is_cut_off(&mut self) {
        loop {
            match within("a loss", self.session.next()).await {
                Some(Update::Disconnected { .. }) => return,
                Some(Update::Ended(ending)) => panic!("ended by {ending:?}"),
                update => assert!(update.is_some(), "the session goes on"),
            }
        }
    }

    pub async fn leave(self) {
        self.session.leave();
        self.end().await;
    }

    pub async fn crash(self) {
        self.session.crash();
        self.end().await;
    }

    /// Reads to the end of the session, and hands over what it recorded.
    pub async fn end(mut self) {
        while within("the end of a session", self.session.next())
            .await
            .is_some()
        {}
        stop(self.telemetry).await;
    }
}

/// Hands over what was recorded.
pub async fn stop(telemetry: Telemetry) {
    let stopping = tokio::task::spawn_blocking(|| telemetry.shutdown());
    stopping.await.expect("telemetry stops");
}
