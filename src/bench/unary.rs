//! Publishing by `SendMessage`: posters outside the room, each with so many calls at a time.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::{Context as _, anyhow};
use tokio::task::JoinSet;
use tonic::{Status, transport::Channel};

use super::{
    Load, Outcome,
    check::{Answers, Violations},
    meter::Meter,
    refused,
    turns::Turns,
};
use crate::{
    client::{
        render,
        status::{because, is_too_fast},
    },
    clock::LamportClock,
    wire::v1::{
        JoinMsgLeave, NoticeCode, SendMessageResponse, chat_service_client::ChatServiceClient,
    },
};

/// What the calls of one poster share: its room is its own, so the answers together are the room's history.
struct Room {
    answers: Answers,
    violations: Violations,
}

/// One call at a time, again and again.
struct Caller {
    index: usize,
    client: ChatServiceClient<Channel>,
    clock: LamportClock,
    message: JoinMsgLeave,
    /// What its message ids begin with.
    prefix: String,
    room: Arc<Mutex<Room>>,
    meter: Arc<Meter>,
}

/// Posts as the stream `index` of `load` until it is over: one caller for each of `turns`, dealt to `clients`.
///
/// # Errors
/// The service refuses a message, or cannot be reached.
pub(super) async fn post(
    clients: Vec<ChatServiceClient<Channel>>,
    load: Arc<Load>,
    index: usize,
    turns: Vec<Turns>,
    meter: Arc<Meter>,
) -> anyhow::Result<Outcome> {
    let room = Arc::new(Mutex::new(Room {
        answers: Answers::of_new(&load.room(index)),
        violations: Violations::default(),
    }));
    let mut callers = JoinSet::new();
    let clients = clients.iter().cycle();
    for (number, (turns, client)) in turns.into_iter().zip(clients).enumerate() {
        let caller = Caller {
            index: number,
            client: client.clone(),
            clock: LamportClock::default(),
            message: JoinMsgLeave {
                client_name: load.name(index),
                room: load.room(index),
                msg: load.text.clone(),
                bot: true,
                ..JoinMsgLeave::default()
            },
            prefix: format!("{}{number}-", load.message_prefix(index)),
            room: Arc::clone(&room),
            meter: Arc::clone(&meter),
        };
        callers.spawn(caller.run(turns));
    }
    let mut outcome = Outcome::default();
    while let Some(ended) = callers.join_next().await {
        outcome.add(ended.context("a caller panicked")??);
    }
    let room = Arc::into_inner(room).expect("all callers have ended");
    let room = room.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut violations = room.violations;
    room.answers.finish(&mut violations);
    outcome.violations.add(violations);
    Ok(outcome)
}

impl Caller {
    async fn run(mut self, mut turns: Turns) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut number = 0_u64;
        while let Some(turn) = poll_fn(|context| turns.poll(context)).await {
            outcome.sent += u64::from(turn.measured);
            self.message.message_id = format!("{}{number}", self.prefix);
            self.message.timestamp = self.clock.tick();
            number += 1;
            let answer = self.client.send_message(self.message.clone()).await;
            let answer = answer.map_err(|status| self.explain(&status))?.into_inner();
            self.clock.merge(answer.timestamp);
            self.check(&answer);
            self.meter.acknowledged(self.index, &[turn], Instant::now());
        }
        outcome.missed = turns.missed();
        Ok(outcome)
    }

    fn check(&self, answer: &SendMessageResponse) {
        let mut room = self.lock();
        let Room {
            answers,
            violations,
        } = &mut *room;
        answers.answer(answer.sequence, answer.timestamp, violations);
    }

    fn explain(&self, status: &Status) -> anyhow::Error {
        let name = &self.message.client_name;
        let words = because(status);
        if is_too_fast(status) {
            return refused(name, NoticeCode::TooFast, words.as_bytes());
        }
        anyhow!("{name} cannot post: {}", render::clean(&words))
    }

    fn lock(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
