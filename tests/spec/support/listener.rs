//! A participant with a [`Session`], and what a test wants to hear from it.

use std::ops::{Deref, DerefMut};

use chitchat::{
    client::session::{Ending, JoinError, Options, Received, Return, Session, Update},
    config,
    wire::v1::EventType,
};

use super::within;

/// A session in a test.
#[derive(Debug)]
pub struct Listener(pub Session);

impl Deref for Listener {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl DerefMut for Listener {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.0
    }
}

/// How `name` joins the lobby of the server at `url`: no past, as people do.
pub fn options(url: &str, name: &str) -> Options {
    let client = config::Client {
        server: url.into(),
        backlog: 0,
        ..config::Client::default()
    };
    Options::new(&client, name)
}

/// Joins the lobby, and reads the own JOIN.
pub async fn join(url: &str, name: &str) -> Listener {
    join_with(options(url, name)).await
}

/// The same with these options; a backlog is left to read.
pub async fn join_with(options: Options) -> Listener {
    let backlog = options.backlog;
    let mut listener = try_join(options).await.expect("the join should succeed");
    if backlog == 0 {
        let own = listener.event().await;
        assert!(
            own.own && own.message.r#type() == EventType::Join,
            "{own:?}"
        );
    }
    listener
}

/// Joins, or not.
pub async fn try_join(options: Options) -> Result<Listener, JoinError> {
    within("a join", Session::join(options)).await.map(Listener)
}

impl Listener {
    /// The next update.
    pub async fn update(&mut self) -> Update {
        within("the next update", self.0.next())
            .await
            .expect("the session should not have ended")
    }

    /// The next update, which is an event.
    pub async fn event(&mut self) -> Received {
        match self.update().await {
            Update::Event(received) => received,
            other => panic!("not an event: {other:?}"),
        }
    }

    /// The texts of the next `count` updates, all of them events.
    pub async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            texts.push(self.event().await.message.msg_stream);
        }
        texts
    }

    /// The next update, which is a notice.
    pub async fn notice(&mut self) -> Received {
        match self.update().await {
            Update::Notice(received) => received,
            other => panic!("not a notice: {other:?}"),
        }
    }

    /// The next update, which says that the connection broke.
    pub async fn disconnected(&mut self) {
        let update = self.update().await;
        assert!(matches!(update, Update::Disconnected { .. }), "{update:?}");
    }

    /// The next update, which says that the session is back: whether nothing was missed.
    pub async fn reconnected(&mut self) -> bool {
        self.back().await.recovered
    }

    /// The same: all that it says.
    pub async fn back(&mut self) -> Return {
        match self.update().await {
            Update::Reconnected(back) => back,
            other => panic!("not back: {other:?}"),
        }
    }

    /// The next update, which is the last.
    pub async fn ending(&mut self) -> Ending {
        match self.update().await {
            Update::Ended(ending) => {
                assert!(self.0.next().await.is_none(), "nothing follows the end");
                ending
            }
            other => panic!("not the end: {other:?}"),
        }
    }

    /// Says something; the id it was given.
    pub async fn says(&self, text: &str) -> String {
        within("a text to be taken", self.0.say(text))
            .await
            .expect("the session should be there")
    }
}
