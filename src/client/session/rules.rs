//! What a participant knows, and what follows from it: pure state, no network and no waiting.

use std::collections::VecDeque;

use super::{Options, Received, Return, Say, UNACKNOWLEDGED_MAX, Update};
use crate::{
    clock::LamportClock,
    telemetry::{EventName, Facts, Sending, Step, log},
    wire::v1::{EventType, JoinMsgLeave, Resume, ServerMessage, Welcome},
};

/// The participant's side of the protocol.
#[derive(Debug)]
pub(super) struct Rules {
    options: Options,
    clock: LamportClock,
    id: i32,
    epoch: String,
    session: String,
    /// Where reading stands; none before the first welcome.
    reading: Option<Reading>,
    /// Events up to this sequence are from before the join.
    past_until: u64,
    /// Sends wait until everything up to this sequence is read: it may hold what is thought to be unacknowledged.
    replay_until: u64,
    /// How often the session was resumed.
    resumes: u64,
    /// What was said and has not been answered, in order.
    unacknowledged: VecDeque<Said>,
    /// The JOIN under way, and its step.
    joining: Option<(i64, Step)>,
}

/// Where reading stands.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// The last event that was read, or that need not be read.
    after: u64,
    /// The next event may be any later one: a starting point, before which there may be less than was asked for.
    afresh: bool,
}

/// A text that has not been answered yet.
#[derive(Debug)]
struct Said {
    say: Say,
    /// As it was sent first in this epoch.
    message: Option<JoinMsgLeave>,
    /// Whether it was given to the present connection.
    sent: bool,
}

/// Events are missing between the last one read and the one received: the connection is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sequence {received} came after {last}")]
pub(super) struct Gap {
    last: u64,
    received: u64,
}

impl Rules {
    pub(super) fn new(options: Options) -> Self {
        Self {
            clock: LamportClock::default(),
            id: options.id,
            epoch: String::new(),
            session: String::new(),
            reading: None,
            past_until: 0,
            replay_until: 0,
            resumes: 0,
            unacknowledged: VecDeque::new(),
            joining: None,
            options,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.options.name
    }

    /// What the log says of a received message.
    pub(super) fn log(&self, message: &ServerMessage) {
        self.options.log.received(&log::Event {
            event: event_name(message),
            participant: &message.sender_name,
            id: message.sender_id,
            lamport_time: message.timestamp,
            room: &self.options.room,
            sequence: message.sequence,
            text: &message.msg_stream,
        });
    }

    pub(super) fn clock(&self) -> i64 {
        self.clock.now()
    }

    pub(super) fn id(&self) -> i32 {
        self.id
    }

    pub(super) fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The JOIN that begins the next stream: the first time as the options say, later to resume.
    ///
    /// One that was not answered may be sent again as it is.
    pub(super) fn join(&mut self) -> JoinMsgLeave {
        // The report's clients joined with their clock as it stood.
        let timestamp = if self.options.merge {
            self.clock.tick()
        } else {
            self.clock.now()
        };
        let step = self.options.tracer.send(Sending::Join, &self.options.room);
        let traceparent = step.traceparent();
        self.joining = Some((timestamp, step));
        self.replay_until = 0;
        for said in &mut self.unacknowledged {
            said.sent = false;
        }
        JoinMsgLeave {
            id: self.id,
            client_name: self.options.name.clone(),
            timestamp,
            r#type: EventType::Join.into(),
            room: self.options.room.clone(),
            bot: self.options.bot,
            traceparent,
            session: self.session.clone(),
            resume: self.reading.map(|reading| Resume {
                epoch: self.epoch.clone(),
                after_sequence: reading.after,
            }),
            backlog: if self.reading.is_none() {
                self.options.backlog
            } else {
                0
            },
            ..JoinMsgLeave::default()
        }
    }

    /// The JOIN under way was refused for its id, and waiting did not help: whether another one is worth trying, with an
    /// id of the server's choice.
    pub(super) fn take_any_id(&mut self) -> bool {
        let another = self.options.id == 0 && self.id != 0;
        self.id = self.options.id;
        another
    }

    /// The service's answer to a JOIN: where reading starts, and who the participant is.
    ///
    /// `first` may be the own JOIN as well; [`Rules::receive`] is then to be called with it too.
    pub(super) fn welcome(&mut self, first: &ServerMessage, welcome: &Welcome) -> Return {
        let newcomer = self.reading.is_none();
        let new_history = !newcomer && welcome.epoch != self.epoch;
        let recovered = welcome.recovered && !new_history && !newcomer;
        if new_history {
            self.begin_epoch(first.timestamp);
        }
        // A new session, or a new start, means that this JOIN is an event. One that resumes is none, and leaves no span.
        let joined = !recovered || (!welcome.session.is_empty() && welcome.session != self.session);
        self.resumes += u64::from(!joined);
        self.id = welcome.id;
        self.epoch.clone_from(&welcome.epoch);
        if !welcome.session.is_empty() {
            self.session.clone_from(&welcome.session);
        }

        let private = first.sequence == 0;
        if recovered {
            self.replay_until = welcome.head;
        } else {
            let backlog = if newcomer && private {
                self.options.backlog
            } else {
                0
            };
            let before_first = first.sequence.saturating_sub(1);
            self.reading = Some(Reading {
                after: if private {
                    welcome.head.saturating_sub(backlog.into())
                } else {
                    before_first
                },
                // Of a backlog there may be less than was asked for. What is live follows at once.
                afresh: backlog > 0,
            });
            self.past_until = if backlog > 0 { welcome.head } else { 0 };
        }
        if let Some((timestamp, step)) = self.joining.take().filter(|_| joined) {
            self.end_send(step, EventName::Join, timestamp, "", "");
        }
        Return {
            recovered,
            new_history,
            from_sequence: self.reading.map_or(0, |reading| reading.after) + 1,
        }
    }

    /// A wiped history is a new world: its clock is the only one, and what was said has not been said in it.
    fn begin_epoch(&mut self, time: i64) {
        self.clock = LamportClock::at(time);
        if let Some((timestamp, _)) = &mut self.joining {
            *timestamp = 0;
        }
        for said in &mut self.unacknowledged {
            said.message = None;
        }
    }

    /// A message from the service, and what the participant hears of it; none for what it has heard already.
    ///
    /// # Errors
    /// [`Gap`]: something is missing before this event. Nothing has changed; the participant is to resume.
    pub(super) fn receive(&mut self, message: ServerMessage) -> Result<Option<Update>, Gap> {
        if message.sequence > 0 {
            self.receive_event(message)
        } else {
            Ok(self.receive_notice(message))
        }
    }

    fn receive_event(&mut self, message: ServerMessage) -> Result<Option<Update>, Gap> {
        let reading = self.reading.unwrap_or(Reading {
            after: 0,
            afresh: true,
        });
        if message.sequence <= reading.after {
            return Ok(None);
        }
        if !reading.afresh && message.sequence > reading.after + 1 {
            return Err(Gap {
                last: reading.after,
                received: message.sequence,
            });
        }
        self.reading = Some(Reading {
            after: message.sequence,
            afresh: false,
        });
        let past = message.sequence <= self.past_until;
        // A session that was lost may have come back under another id: what it said before is its own all the same.
        let answered = self.acknowledge(&message.message_id);
        let own = answered || (!past && message.sender_id == self.id);
        Ok(Some(Update::Event(self.step(message, own, past))))
    }

    fn receive_notice(&mut self, message: ServerMessage) -> Option<Update> {
        let notice = message.notice.as_ref()?;
        let message_id = notice.message_id.clone();
        self.acknowledge(&message_id);
        Some(Update::Notice(self.step(message, false, false)))
    }

    /// The receipt of `message` as a step of this process: the clock moves, and the trace gets its span.
    fn step(&mut self, message: ServerMessage, own: bool, past: bool) -> Received {
        let before = self.clock.now();
        if self.options.merge && !past {
            self.clock.merge(message.timestamp);
        }
        let received = Received {
            before,
            after: self.clock.now(),
            message,
            own,
            past,
        };
        if !past {
            self.trace_delivery(&received);
        }
        received
    }

    fn trace_delivery(&self, received: &Received) {
        let message = &received.message;
        if message.traceparent.is_empty() {
            return;
        }
        let event = event_name(message);
        self.options
            .tracer
            .deliver(&message.traceparent, &self.options.room)
            .end(&Facts {
                event,
                lamport_time: received.after,
                lamport_message_time: Some(message.timestamp),
                process_id: &self.id.to_string(),
                participant: match event {
                    EventName::Refusal => &self.options.name,
                    _ => &message.sender_name,
                },
                message_id: &message.message_id,
                sequence: message.sequence,
                epoch: &self.epoch,
                text: &message.msg_stream,
                replayed: message.sequence != 0 && message.sequence <= self.replay_until,
                resumes: self.resumes,
                ..Facts::default()
            });
    }

    /// Whether `message_id` is of something that was waiting for its answer; it then waits no longer.
    fn acknowledge(&mut self, message_id: &str) -> bool {
        let waiting = self
            .unacknowledged
            .iter()
            .position(|said| said.say.message_id == message_id);
        waiting.is_some_and(|index| self.unacknowledged.remove(index).is_some())
    }

    /// Whether a further text can be taken.
    pub(super) fn takes_more(&self) -> bool {
        self.unacknowledged.len() < UNACKNOWLEDGED_MAX
    }

    pub(super) fn say(&mut self, say: Say) {
        self.unacknowledged.push_back(Said {
            say,
            message: None,
            sent: false,
        });
    }

    /// How many messages nobody may have seen yet.
    pub(super) fn unacknowledged(&self) -> usize {
        self.unacknowledged.len()
    }

    /// Whether [`Rules::send`] has something to send on this connection.
    pub(super) fn has_to_send(&self) -> bool {
        !self.replaying() && self.unacknowledged.iter().any(|said| !said.sent)
    }

    fn replaying(&self) -> bool {
        self.reading
            .is_some_and(|reading| reading.after < self.replay_until)
    }

    /// The next message for this connection: a new send, or the repetition of one that a break left without an answer.
    pub(super) fn send(&mut self) -> Option<JoinMsgLeave> {
        if self.replaying() {
            return None;
        }
        let index = self.unacknowledged.iter().position(|said| !said.sent)?;
        if self.unacknowledged[index].message.is_none() {
            let message = self.first_send(index);
            self.unacknowledged[index].message = Some(message);
        }
        let said = &mut self.unacknowledged[index];
        said.sent = true;
        said.message.clone()
    }

    fn first_send(&mut self, index: usize) -> JoinMsgLeave {
        let step = self
            .options
            .tracer
            .send(Sending::Message, &self.options.room);
        let traceparent = step.traceparent();
        let timestamp = self.clock.tick();
        let Say { text, message_id } = &self.unacknowledged[index].say;
        self.end_send(step, EventName::Message, timestamp, text, message_id);
        JoinMsgLeave {
            id: self.id,
            client_name: self.options.name.clone(),
            timestamp,
            msg: text.clone(),
            r#type: EventType::Message.into(),
            message_id: message_id.clone(),
            traceparent,
            ..JoinMsgLeave::default()
        }
    }

    /// The LEAVE, to be sent when everything said is acknowledged.
    pub(super) fn leave(&mut self) -> JoinMsgLeave {
        let step = self.options.tracer.send(Sending::Leave, &self.options.room);
        let traceparent = step.traceparent();
        let timestamp = self.clock.tick();
        self.end_send(step, EventName::Leave, timestamp, "", "");
        JoinMsgLeave {
            id: self.id,
            client_name: self.options.name.clone(),
            timestamp,
            r#type: EventType::Leave.into(),
            traceparent,
            ..JoinMsgLeave::default()
        }
    }

    fn end_send(&self, step: Step, event: EventName, time: i64, text: &str, message_id: &str) {
        step.end(&Facts {
            event,
            lamport_time: time,
            lamport_message_time: None,
            process_id: &self.id.to_string(),
            participant: &self.options.name,
            message_id,
            sequence: 0,
            epoch: &self.epoch,
            text,
            resumes: self.resumes,
            ..Facts::default()
        });
    }
}

/// What a received message is in traces and logs; of the notices only those that refuse something are traced.
fn event_name(message: &ServerMessage) -> EventName {
    if message.notice.is_some() {
        return EventName::Refusal;
    }
    match message.r#type() {
        EventType::Join => EventName::Join,
        EventType::Message => EventName::Message,
        EventType::Leave => EventName::Leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// Alex, with a backlog of `backlog`; its first JOIN is under way.
    fn alex(backlog: u32) -> Rules {
        let client = config::Client {
            backlog,
            ..config::Client::default()
        };
        let mut alex = Rules::new(Options::new(&client, "Alex"));
        alex.join();
        alex
    }

    /// Alex after its JOIN, which was event 1 at logical time 2 of the history `old`.
    fn joined() -> Rules {
        let mut alex = alex(0);
        let own = ServerMessage {
            welcome: Some(welcome_to("old", false, 1)),
            r#type: EventType::Join.into(),
            ..event(1, "")
        };
        welcomed(&mut alex, &own);
        alex.receive(own).expect("the first event");
        alex
    }

    fn welcome_to(epoch: &str, recovered: bool, head: u64) -> Welcome {
        Welcome {
            id: 7,
            session: format!("secret of {epoch}"),
            epoch: epoch.into(),
            recovered,
            head,
        }
    }

    fn private(welcome: Welcome, timestamp: i64) -> ServerMessage {
        ServerMessage {
            welcome: Some(welcome),
            timestamp,
            r#type: EventType::Message.into(),
            ..ServerMessage::default()
        }
    }

    fn welcomed(rules: &mut Rules, first: &ServerMessage) -> bool {
        let welcome = first.welcome.as_ref().expect("it has one");
        rules.welcome(first, welcome).recovered
    }

    /// Event `sequence` of Alex's, one logical time after its sequence.
    fn event(sequence: u64, message_id: &str) -> ServerMessage {
        ServerMessage {
            sender_id: 7,
            sequence,
            timestamp: sequence as i64 + 1,
            message_id: message_id.into(),
            r#type: EventType::Message.into(),
            ..ServerMessage::default()
        }
    }

    fn say(rules: &mut Rules, message_id: &str) {
        rules.say(Say {
            text: "Hello".into(),
            message_id: message_id.into(),
        });
    }

    #[test]
    fn nothing_is_sent_again_before_the_replay_is_read() {
        let mut alex = joined();
        for message_id in ["a", "b", "c"] {
            say(&mut alex, message_id);
        }
        let sent: Vec<_> = (0..2).map(|_| alex.send().expect("a message")).collect();

        let resume = alex.join().resume.expect("it has read something");
        assert_eq!((resume.epoch.as_str(), resume.after_sequence), ("old", 1));
        assert!(welcomed(&mut alex, &private(welcome_to("old", true, 3), 9)));
        assert!(!alex.has_to_send() && alex.send().is_none());
        alex.receive(event(2, "a")).expect("no gap");
        assert!(!alex.has_to_send(), "b may be event 3");
        alex.receive(event(3, "of another")).expect("no gap");

        assert_eq!(alex.send().as_ref(), sent.get(1), "b, byte for byte");
        assert_eq!(alex.send().expect("c").message_id, "c");
        assert!(!alex.has_to_send());
    }

    #[test]
    fn in_a_new_epoch_what_was_said_is_a_new_send_and_the_clock_the_new_worlds() {
        let mut alex = joined();
        say(&mut alex, "a");
        alex.receive(ServerMessage {
            timestamp: 1_000,
            ..event(2, "")
        })
        .expect("no gap");
        let old = alex.send().expect("a message");
        assert_eq!(old.timestamp, 1_002);

        alex.join();
        assert!(!welcomed(
            &mut alex,
            &private(welcome_to("new", true, 40), 3)
        ));
        let new = alex.send().expect("the message again");

        assert_eq!((new.timestamp, new.message_id.as_str()), (4, "a"));
        assert!(alex.receive(event(41, "")).expect("a new start").is_some());
    }

    #[test]
    fn an_event_is_heard_once_and_a_gap_is_told() {
        let mut alex = joined();
        let clock = alex.clock();
        assert!(alex.receive(event(1, "")).expect("heard before").is_none());
        assert_eq!(alex.clock(), clock);
        assert_eq!(
            alex.receive(event(3, "")).unwrap_err(),
            Gap {
                last: 1,
                received: 3
            }
        );
        assert!(alex.receive(event(2, "")).expect("no gap").is_some());
    }

    /// Resuming after the head would have passed over the past that was asked for.
    #[test]
    fn a_break_before_the_first_event_of_the_past_resumes_before_it() {
        let mut alex = alex(20);
        welcomed(&mut alex, &private(welcome_to("old", false, 100), 300));
        let resume = alex.join().resume.expect("it has been welcomed");
        assert_eq!(resume.after_sequence, 80);

        welcomed(&mut alex, &private(welcome_to("old", true, 101), 302));
        let Ok(Some(Update::Event(received))) = alex.receive(event(81, "")) else {
            panic!("an event is an event");
        };
        assert!(received.past && received.before == received.after);
    }

    #[test]
    fn an_id_that_the_server_picked_may_be_given_up_and_a_wanted_one_not() {
        let mut alex = joined();
        assert_eq!(alex.join().id, 7);
        assert!(alex.take_any_id());
        assert_eq!(alex.join().id, 0);
        assert!(!alex.take_any_id(), "0 can be held by nobody");

        let mut alex = joined();
        alex.options.id = 7;
        assert!(!alex.take_any_id());
    }
}
