//! One room: how many are in it, and how far its readers are, which decides when its publishers may go on.

use std::sync::{
    Arc,
    atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
};

use tokio::sync::mpsc;

use super::{Cast, Load};

/// Each says that there is room for more messages, and no more.
pub(super) type Wakes = mpsc::Receiver<()>;

/// What those in a room share.
pub(super) struct Room {
    pub(super) name: String,
    /// Participants that join it in all; their JOINs are its first events.
    pub(super) members: u64,
    /// Those who read: each message leads to as many deliveries.
    readers: u64,
    window: u64,
    burst: u64,
    /// Messages that were sent, or may be sent now.
    claimed: AtomicU64,
    /// Deliveries of all its messages.
    delivered: AtomicU64,
    pub(super) publishers: Vec<Publisher>,
    /// Whose turn it is to go on.
    next: AtomicUsize,
    /// Measured messages.
    measured: AtomicU64,
}

/// One who publishes in a room.
pub(super) struct Publisher {
    pub(super) name: Arc<str>,
    /// Messages that it has sent.
    sent: AtomicU64,
    wake: mpsc::Sender<()>,
}

impl Room {
    /// The room `index` of those that `cast` is dealt to.
    pub(super) fn new(cast: &Cast, load: &Load, index: usize) -> (Self, Vec<Wakes>) {
        let share = |of| cast.share(of, index) as u64;
        let (publishers, subscribers) = (share(cast.publishers), share(cast.subscribers));
        let silent = if cast.watch {
            0
        } else {
            subscribers + share(cast.stalled)
        };
        let (channels, wakes): (Vec<_>, Vec<_>) = (0..publishers).map(|_| mpsc::channel(1)).unzip();
        let publisher = |(place, wake)| Publisher {
            name: load.name(index + place * cast.rooms).into(),
            sent: AtomicU64::new(0),
            wake,
        };
        let room = Self {
            name: load.room(index),
            members: publishers + silent,
            readers: publishers + subscribers,
            window: cast.window,
            burst: cast.burst,
            claimed: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            publishers: channels.into_iter().enumerate().map(publisher).collect(),
            next: AtomicUsize::new(0),
            measured: AtomicU64::new(0),
        };
        (room, wakes)
    }

    /// How many messages are sent at once.
    pub(super) fn burst(&self) -> u64 {
        self.burst
    }

    /// Whether a burst may be sent now. If not, one of the publishers is woken when it may.
    pub(super) fn claim(&self) -> bool {
        loop {
            let claimed = self.claimed.load(SeqCst);
            if self.delivered.load(SeqCst) < self.enough(claimed) {
                return false;
            }
            let more = claimed + self.burst;
            if (self.claimed)
                .compare_exchange(claimed, more, SeqCst, SeqCst)
                .is_ok()
            {
                return true;
            }
        }
    }

    /// So many messages have come to one more of the readers.
    ///
    /// Whoever brings the count to what a burst waits for wakes a publisher. None is missed: a publisher looks at
    /// `delivered` after it has changed `claimed`, and this the other way round.
    pub(super) fn delivered(&self, count: u64) {
        let before = self.delivered.fetch_add(count, SeqCst);
        let enough = self.enough(self.claimed.load(SeqCst));
        if before < enough && before + count >= enough {
            let next = self.next.fetch_add(1, Relaxed) % self.publishers.len();
            // One that has not looked since it was last woken finds this too.
            let _ = self.publishers[next].wake.try_send(());
        }
    }

    /// Deliveries that there must be before a burst may follow so many messages.
    fn enough(&self, claimed: u64) -> u64 {
        (claimed + self.burst).saturating_sub(self.window) * self.readers
    }

    /// The publisher in place `place` has sent so many messages more, of which so many are measured.
    pub(super) fn sent(&self, place: usize, count: u64, measured: u64) {
        self.publishers[place].sent.fetch_add(count, SeqCst);
        self.measured.fetch_add(measured, SeqCst);
    }

    /// How many messages the publisher in `place` has sent.
    pub(super) fn sent_by(&self, place: usize) -> u64 {
        self.publishers[place].sent.load(SeqCst)
    }

    /// Deliveries that its measured messages should have led to.
    pub(super) fn measured_due(&self) -> u64 {
        self.measured.load(SeqCst) * self.readers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A room of one publisher and three who only read.
    fn room(window: u64, burst: u64) -> (Room, Wakes) {
        let cast = Cast {
            rooms: 1,
            publishers: 1,
            subscribers: 3,
            watch: false,
            stalled: 2,
            streams_per_connection: 1,
            window,
            burst,
            text_chars: 100,
        };
        let (room, mut wakes) = Room::new(&cast, &Load::new(1, 0, 100), 0);
        (room, wakes.remove(0))
    }

    #[test]
    fn those_who_stand_still_join_and_are_not_waited_for() {
        let (room, _) = room(1, 1);
        assert_eq!((room.members, room.readers), (6, 4));
    }

    #[test]
    fn with_a_window_of_one_a_message_waits_until_all_have_the_one_before() {
        let (room, mut wakes) = room(1, 1);
        assert!(room.claim());
        assert!(!room.claim());

        room.delivered(1);
        room.delivered(2);
        assert!(!room.claim() && wakes.try_recv().is_err());
        room.delivered(1);

        assert_eq!(wakes.try_recv(), Ok(()));
        assert!(room.claim());
        assert!(!room.claim());
    }

    #[test]
    fn a_window_is_filled_by_bursts_of_half_of_it() {
        let (room, mut wakes) = room(8, 4);
        assert!(room.claim() && room.claim());
        assert!(!room.claim());

        room.delivered(15);
        assert!(!room.claim() && wakes.try_recv().is_err());
        // Far more than one burst waits for: there is one wake, and two bursts to be claimed.
        room.delivered(17);

        assert_eq!(wakes.try_recv(), Ok(()));
        assert!(room.claim() && room.claim());
        assert!(!room.claim() && wakes.try_recv().is_err());
    }
}
