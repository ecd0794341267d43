//! Data directories that a real server has left behind, and what it answered before it ended.

use std::{fs, path::Path};

use chitchat::wire::v1::{
    GetHistoryRequest, GetHistoryResponse, JoinMsgLeave, ListParticipantsRequest,
    ListParticipantsResponse, ListRoomsRequest, ListRoomsResponse,
    chat_service_client::ChatServiceClient,
};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tonic::{Status, transport::Channel};

use super::{
    raw::{CHAT, Raw, join, said},
    server_process::ServerProcess,
};

/// The database.
pub const DATABASE: &str = "chitchat.db";

/// Its write-ahead log.
pub const LOG: &str = "chitchat.db-wal";

/// The lock, and witness.
pub const LOCK: &str = "chitchat.lock";

/// The rooms of the run that the directories come from.
pub const ROOMS: [&str; 4] = ["attic", "cellar", "kitchen", "lobby"];

/// What a conversation left behind, once for all tests.
pub struct Left {
    directory: TempDir,
    /// What the server answered, and answers again whenever it is whole.
    pub answers: Answers,
}

/// Everything that a server tells about its history.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    rooms: ListRoomsResponse,
    participants: Vec<ListParticipantsResponse>,
    /// Forwards and backwards.
    history: Vec<[GetHistoryResponse; 2]>,
}

/// By a server that was killed: the last events are in the write-ahead log alone.
pub async fn left_by_a_kill() -> &'static Left {
    static LEFT: OnceCell<Left> = OnceCell::const_new();
    LEFT.get_or_init(async || {
        let directory = tempfile::tempdir().expect("a directory should be made");
        let server = ServerProcess::with(directory.path(), &[PATIENT]).await;
        converse(&server).await;
        let answers = Answers::of(server.connect().await).await;
        server.end(Signal::KILL).await;
        Left {
            directory,
            answers: answers.expect("a whole server answers"),
        }
    })
    .await
}

/// By a server that was stopped: everything is in the one file.
pub async fn left_by_a_stop() -> &'static Left {
    static LEFT: OnceCell<Left> = OnceCell::const_new();
    LEFT.get_or_init(async || {
        let killed = left_by_a_kill().await;
        let directory = killed.copy();
        let server = ServerProcess::with(directory.path(), &[PATIENT]).await;
        let answers = Answers::of(server.connect().await).await;
        server.end(Signal::TERM).await;
        assert_eq!(answers.as_ref().ok(), Some(&killed.answers));
        assert!(!directory.path().join(LOG).exists(), "a clean stop");
        Left {
            directory,
            answers: killed.answers.clone(),
        }
    })
    .await
}

impl Left {
    /// A copy to be damaged.
    pub fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().expect("a directory should be made");
        self.copy_to(copy.path());
        copy
    }

    /// The same, into a directory that is there.
    pub fn copy_to(&self, directory: &Path) {
        // Not the shared memory: it is of no use to another process, and made anew.
        for file in [DATABASE, LOG, LOCK] {
            let from = self.directory.path().join(file);
            if from.exists() {
                fs::copy(from, directory.join(file)).expect("a file should be copied");
            }
        }
    }
}

impl Answers {
    /// Asks the server at the other end of `channel` for everything.
    pub async fn of(channel: Channel) -> Result<Self, Status> {
        let mut client = ChatServiceClient::new(channel);
        let rooms = client.list_rooms(ListRoomsRequest {}).await?.into_inner();
        let (mut participants, mut history) = (Vec::new(), Vec::new());
        for room in ROOMS {
            let request = ListParticipantsRequest { room: room.into() };
            participants.push(client.list_participants(request).await?.into_inner());
            let page = |before_sequence| GetHistoryRequest {
                room: room.into(),
                before_sequence,
                limit: 1_000,
                ..GetHistoryRequest::default()
            };
            let forwards = client.get_history(page(0)).await?.into_inner();
            let backwards = client.get_history(page(u64::MAX)).await?.into_inner();
            history.push([forwards, backwards]);
        }
        Ok(Self {
            rooms,
            participants,
            history,
        })
    }

    /// How many events there are, in all rooms.
    pub fn events(&self) -> usize {
        let histories = self.history.iter();
        histories.map(|[forwards, _]| forwards.events.len()).sum()
    }
}

/// Expects everybody back for longer than any test, so that nothing happens by itself.
pub const PATIENT: (&str, &str) = ("CHITCHAT_SERVER__GRACE", "1h");

/// Some hundred events in some rooms; some have left, some are there, and one has been refused a word.
async fn converse(server: &ServerProcess) {
    let mut there = Vec::new();
    for (number, room) in ROOMS.into_iter().enumerate() {
        for name in ["Ada", "Bob", "Cleo"] {
            let mut stream = Raw::open(server.connect().await, CHAT).await;
            stream.send(JoinMsgLeave {
                room: room.into(),
                bot: name == "Cleo",
                ..join(name)
            });
            stream.next().await;
            there.push((name, room, stream));
        }
        let (_, _, ada) = &mut there[3 * number];
        ada.take(2).await;
        for count in 0..50 * (number + 1) {
            let text = format!(
                "{count} things in the {room}: {}",
                "things ".repeat(count % 12)
            );
            ada.send(JoinMsgLeave {
                message_id: format!("{room}-{count}"),
                ..said(&text, 0)
            });
            // One by one, so that there are as many transactions.
            ada.next().await;
        }
        ada.say("", 0);
        assert!(ada.next().await.notice.is_some());
    }
    for (name, room, mut stream) in there {
        let leaves = name == "Bob" || room == "cellar";
        if leaves {
            stream.leave(0);
            assert!(stream.rest().await.1.is_ok());
        } else {
            // Dropped before the server is killed, as by a vanished client: it may return.
            drop(stream);
        }
    }
}
