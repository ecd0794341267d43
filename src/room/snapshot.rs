//! The state in the form in which it is kept, and taken up again when a server starts.

use std::collections::BTreeMap;

use super::{
    Digest, Member, Room, Service,
    recent::{First, Recent},
    rules,
};
use crate::{clock::LamportClock, config::Limits};

/// What of the state the rooms' events do not hold; together they are all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The identity of the history.
    pub epoch: String,
    /// What the service's clock shows.
    pub clock: i64,
    /// How many incarnations were given out.
    pub incarnations: u64,
    /// Every room that has a history.
    pub rooms: Vec<RoomSnapshot>,
}

/// One room of a [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomSnapshot {
    /// Its name.
    pub name: String,
    /// The last sequence given out.
    pub head: u64,
    /// The oldest sequence that can be read.
    pub first: u64,
    /// The oldest sequence of which anything is kept: its message id at least.
    pub oldest: u64,
    /// Who is in it.
    pub members: Vec<Member>,
}

/// The length of [`Past::to_bytes`]: two digests and a logical time.
const PAST_BYTES: usize = 16 + 16 + 8;

/// A message of the past, by which a retry of it is recognized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    key: Digest,
    first: First,
}

impl Past {
    /// The message that was stored as `message_id`, with what became of it.
    #[must_use]
    pub fn new(message_id: &str, sender: &str, text: &str, timestamp: i64, sequence: u64) -> Self {
        Self {
            key: rules::key(message_id),
            first: First {
                content: rules::content(sender, text),
                timestamp,
                sequence,
            },
        }
    }
}

impl Past {
    /// What is kept of the message when its event is not any more: digests, which tell nothing of what was said.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; PAST_BYTES] {
        let mut bytes = [0; PAST_BYTES];
        bytes[..16].copy_from_slice(&self.key.0);
        bytes[16..32].copy_from_slice(&self.first.content.0);
        bytes[32..].copy_from_slice(&self.first.timestamp.to_le_bytes());
        bytes
    }

    /// The message at `sequence` again.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; PAST_BYTES], sequence: u64) -> Self {
        let digest = |from| {
            let mut digest = [0; 16];
            digest.copy_from_slice(&bytes[from..from + 16]);
            Digest(digest)
        };
        let mut timestamp = [0; 8];
        timestamp.copy_from_slice(&bytes[32..]);
        Self {
            key: digest(0),
            first: First {
                content: digest(16),
                timestamp: i64::from_le_bytes(timestamp),
                sequence,
            },
        }
    }
}

impl Snapshot {
    /// The state before the first command. `epoch` is the new history's identity.
    #[must_use]
    pub fn new(epoch: String) -> Self {
        Self {
            epoch,
            clock: 0,
            incarnations: 0,
            rooms: Vec::new(),
        }
    }
}

impl Service {
    /// A service that takes up where `snapshot` ends.
    ///
    /// The message ids of a room come later, when the first command for it does ([`Service::forgotten`]): a server with
    /// many rooms would otherwise read all their recent past before it serves the first.
    #[must_use]
    pub fn restore(snapshot: Snapshot, limits: Limits) -> Self {
        let rooms = snapshot.rooms.into_iter().map(|kept| {
            let mut room = Room {
                head: kept.head,
                first: kept.first,
                oldest: kept.oldest,
                recent: Recent::forgotten(),
                ..Room::new()
            };
            for member in kept.members {
                room.insert(member);
            }
            (kept.name.into(), room)
        });
        Self {
            epoch: snapshot.epoch,
            limits,
            clock: LamportClock::at(snapshot.clock),
            incarnations: snapshot.incarnations,
            rooms: rooms.collect::<BTreeMap<_, _>>(),
        }
    }

    /// Whether `room` has message ids that this service must be told ([`Service::recall`]) before it applies a command
    /// there: those of the messages after the returned sequence.
    #[must_use]
    pub fn forgotten(&self, room: &str) -> Option<u64> {
        let room = self.rooms.get(room)?;
        let window = self.limits.dedup_events as u64;
        let after = room.head.saturating_sub(window).max(room.oldest - 1);
        room.recent.is_forgotten().then_some(after)
    }

    /// Tells the service what [`Service::forgotten`] asked for, in ascending order.
    pub fn recall(&mut self, room: &str, past: impl IntoIterator<Item = Past>) {
        let Some(room) = self.rooms.get_mut(room) else {
            return;
        };
        room.recent = Recent::default();
        for Past { key, first } in past {
            room.recent.remember(key, first);
        }
    }

    /// The oldest sequence of `room` of which anything is kept.
    #[must_use]
    pub fn oldest(&self, room: &str) -> u64 {
        self.rooms.get(room).map_or(1, |room| room.oldest)
    }

    /// How many incarnations were given out so far.
    #[must_use]
    pub fn incarnations(&self) -> u64 {
        self.incarnations
    }

    /// The participant `id` of `room`.
    #[must_use]
    pub fn member(&self, room: &str, id: i32) -> Option<&Member> {
        self.rooms.get(room)?.members.get(&id)
    }
}
