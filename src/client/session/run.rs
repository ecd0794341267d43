//! The task behind a session: it owns the connection, and makes another one when it breaks.

use std::{future::Future, pin::pin};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tonic::{Status, Streaming};

use super::{Ending, LEAVE_PATIENCE, Say, Standing, Update, Wish, rules::Rules};
use crate::{
    client::{
        backoff::{Backoff, Held},
        connection::{Connection, Route},
        status::{asks_to_resume, because, is_held, is_id_held, is_superseded},
    },
    telemetry::log::ClientLog,
    wire::v1::{JoinMsgLeave, ServerMessage, Welcome},
};

/// A session at work.
pub(super) struct Task {
    pub(super) route: Route,
    pub(super) rules: Rules,
    pub(super) says: mpsc::Receiver<Say>,
    pub(super) wish: watch::Receiver<Wish>,
    pub(super) updates: mpsc::Sender<Update>,
    pub(super) standing: watch::Sender<Standing>,
    pub(super) leaving: Leaving,
    pub(super) backoff: Backoff,
    /// JOINs of this session that had no answer. Each may still arrive and take the participant over, with nobody at its
    /// other end.
    pub(super) lost_joins: u32,
    pub(super) log: ClientLog,
}

/// How far the leaving has come.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// When patience ends; none while the participant wants to stay.
    deadline: Option<Instant>,
    /// Nothing more will be said.
    said_all: bool,
    /// LEAVE is on its way.
    sent: bool,
    /// There is no connection to leave by.
    away: bool,
}

/// How a connection ended.
enum Stop {
    /// It broke, or the service asks to come back: why.
    Broken(String),
    /// And the session with it.
    Over(Ending),
}

impl Task {
    /// Reads and writes until the session ends; the last update says how it did.
    ///
    /// `connection` and `first` are of the JOIN that made the session.
    pub(super) async fn run(mut self, connection: Connection, first: ServerMessage) {
        let ending = self.stay(connection, first).await;
        self.log.closed(self.rules.name(), &ending.to_string());
        // Fails when nobody listens any more; then nobody need know.
        let _ = self.updates.send(Update::Ended(ending)).await;
    }

    async fn stay(&mut self, mut connection: Connection, mut first: ServerMessage) -> Ending {
        loop {
            let opened = Instant::now();
            let reason = match self.converse(connection, first).await {
                Stop::Broken(reason) => reason,
                Stop::Over(ending) => return ending,
            };
            self.backoff.held(opened.elapsed());
            (connection, first) = match self.come_back(reason).await {
                Ok(returned) => returned,
                Err(ending) => return ending,
            };
        }
    }

    /// Reads and writes until the connection ends, and cuts it.
    async fn converse(&mut self, mut connection: Connection, first: ServerMessage) -> Stop {
        let updates = self.updates.clone();
        let mut first = Some(first);
        loop {
            // The first message may be the own JOIN, whose time is to be in the clock before anything is sent.
            let sends = first.is_none() && self.has_to_send() && !connection.outbox.is_closed();
            tokio::select! {
                ending = self.heed() => if let Some(ending) = ending {
                    return Stop::Over(ending);
                },
                (permit, message) = read(&updates, &mut first, &mut connection.inbound) => {
                    match self.receive(message) {
                        Ok(Some(update)) => permit.send(update),
                        Ok(None) => {}
                        Err(stop) => return stop,
                    }
                }
                Ok(permit) = connection.outbox.reserve(), if sends => {
                    if let Some(message) = self.send() {
                        permit.send(message);
                    }
                }
            }
        }
    }

    /// Joins again until the service answers; `Err` if it does not want to, or the participant no longer.
    ///
    /// Whoever holds the name or the id may be an earlier attempt of this loop, whose answer was lost: see [`Held`].
    async fn come_back(&mut self, reason: String) -> Result<(Connection, ServerMessage), Ending> {
        self.log.closed(self.rules.name(), &reason);
        self.leaving.away = true;
        self.tell(Update::Disconnected { reason }).await?;
        let mut join = self.rules.join();
        self.publish();
        let mut held = Held::default();
        loop {
            let pause = self.backoff.pause();
            self.heeding(tokio::time::sleep(pause)).await?;
            let route = self.route.clone();
            let opening = Connection::open(&route, join.clone(), self.log);
            let (connection, first) = match self.heeding(opening).await? {
                Ok(opened) => opened,
                Err(status) if asks_to_resume(&status) => {
                    held.unanswered();
                    self.lost_joins = self.lost_joins.saturating_add(1);
                    continue;
                }
                Err(status) if self.is_superseded_by_itself(&status) => continue,
                Err(status) if is_held(&status) && held.is_waited_for() => continue,
                Err(status) if is_id_held(&status) && self.rules.take_any_id() => {
                    join = self.rules.join();
                    continue;
                }
                Err(status) => return Err(Ending::Refused(status)),
            };
            let welcome = welcome(&first).map_err(Ending::Refused)?;
            let back = self.rules.welcome(&first, &welcome);
            self.leaving.away = false;
            self.publish();
            self.tell(Update::Reconnected(back)).await?;
            return Ok((connection, first));
        }
    }

    /// What follows from a message, or from the end of the stream.
    fn receive(
        &mut self,
        message: Result<Option<ServerMessage>, Status>,
    ) -> Result<Option<Update>, Stop> {
        match message {
            Ok(Some(message)) => {
                let update = self
                    .rules
                    .receive(message)
                    .map_err(|gap| Stop::Broken(gap.to_string()))?;
                self.publish();
                if let Some(Update::Event(received) | Update::Notice(received)) = &update
                    && !received.past
                {
                    self.rules.log(&received.message);
                }
                Ok(update)
            }
            Ok(None) if self.rules.unacknowledged() == 0 => Err(Stop::Over(Ending::Left)),
            Ok(None) => Err(Stop::Over(self.abandoned())),
            // Whether LEAVE arrived is not known; coming back to ask would be a JOIN if it did.
            Err(_) if self.leaving.sent => Err(Stop::Over(self.abandoned())),
            Err(status) if asks_to_resume(&status) || self.is_superseded_by_itself(&status) => {
                Err(Stop::Broken(because(&status)))
            }
            Err(status) => Err(Stop::Over(Ending::Refused(status))),
        }
    }

    /// Whether the newer stream that `status` speaks of is that of an own JOIN which arrived late: nobody else knows the
    /// session. As often as there are such JOINs, so that two who know it all the same do not fight for ever.
    fn is_superseded_by_itself(&mut self, status: &Status) -> bool {
        let by_itself = is_superseded(status) && self.lost_joins > 0;
        if by_itself {
            self.lost_joins -= 1;
        }
        by_itself
    }

    fn has_to_send(&self) -> bool {
        self.rules.has_to_send() || self.leave_is_due()
    }

    /// LEAVE waits until everything said is acknowledged: a break after it leaves nothing to come back for.
    fn leave_is_due(&self) -> bool {
        self.leaving.said_all && !self.leaving.sent && self.rules.unacknowledged() == 0
    }

    fn send(&mut self) -> Option<JoinMsgLeave> {
        let message = if self.leave_is_due() {
            self.leaving.sent = true;
            self.log.leaving(self.rules.name());
            Some(self.rules.leave())
        } else {
            self.rules.send()
        };
        self.publish();
        message
    }

    /// Waits for `future` with an open ear for the participant; `Err` if that ends the session.
    async fn heeding<F: Future>(&mut self, future: F) -> Result<F::Output, Ending> {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return Ok(output),
                ending = self.heed() => if let Some(ending) = ending {
                    return Err(ending);
                },
            }
        }
    }

    async fn tell(&mut self, update: Update) -> Result<(), Ending> {
        let updates = self.updates.clone();
        let told = self.heeding(updates.send(update)).await?;
        told.map_err(|_| Ending::Crashed)
    }

    /// Waits for one thing the participant wants and notes it; `Some` if it ends the session. Cancel safe.
    async fn heed(&mut self) -> Option<Ending> {
        let takes_more = !self.leaving.said_all && self.rules.takes_more();
        let deadline = self.leaving.deadline;
        tokio::select! {
            changed = self.wish.changed() => {
                let wish = changed.map_or(Wish::Crash, |()| *self.wish.borrow());
                match wish {
                    Wish::Stay => {}
                    Wish::Leave => {
                        self.says.close();
                        self.leaving.deadline = Some(Instant::now() + LEAVE_PATIENCE);
                    }
                    Wish::Crash => return Some(Ending::Crashed),
                }
            }
            say = self.says.recv(), if takes_more => match say {
                Some(say) => self.rules.say(say),
                None => self.leaving.said_all = true,
            },
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)),
                if deadline.is_some() => return Some(self.abandoned()),
        }
        let nothing_left_to_do = self.leaving.away && self.leave_is_due();
        nothing_left_to_do.then(|| self.abandoned())
    }

    fn abandoned(&self) -> Ending {
        Ending::Abandoned {
            unacknowledged: self.rules.unacknowledged(),
        }
    }

    fn publish(&self) {
        self.standing.send_modify(|standing| {
            standing.clock = self.rules.clock();
            standing.id = self.rules.id();
            if standing.epoch != self.rules.epoch() {
                self.rules.epoch().clone_into(&mut standing.epoch);
            }
        });
    }
}

/// Reads the next message once there is room for the update it may make. Cancel safe.
async fn read<'a>(
    updates: &'a mpsc::Sender<Update>,
    first: &mut Option<ServerMessage>,
    inbound: &mut Streaming<ServerMessage>,
) -> (
    mpsc::Permit<'a, Update>,
    Result<Option<ServerMessage>, Status>,
) {
    let Ok(permit) = updates.reserve().await else {
        // Nobody listens any more: the session was dropped, and this task is being ended.
        return std::future::pending().await;
    };
    let message = match first.take() {
        Some(first) => Ok(Some(first)),
        None => inbound.message().await,
    };
    (permit, message)
}

/// The welcome in the service's first message.
pub(super) fn welcome(first: &ServerMessage) -> Result<Welcome, Status> {
    first
        .welcome
        .clone()
        .ok_or_else(|| Status::failed_precondition("the service's first message is no welcome"))
}
