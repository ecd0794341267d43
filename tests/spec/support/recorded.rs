//! Recorded runs, made without a network: the real rules of the room, a model of the clients, and what their programs
//! would have recorded.

use std::{collections::BTreeMap, sync::Arc, time::UNIX_EPOCH};

use chitchat::{
    causality::{
        audit::{State, Verdict},
        run::Run,
        step::{Act, Process, Recording, Step, StepId},
    },
    clock::LamportClock,
    config,
    room::{
        Action, Answer, Command, Digest, Event, Incarnation, Join, Outcome, Refused, Resume,
        Service,
    },
    telemetry::EventName,
};
use opentelemetry::{SpanId, TraceId};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// What `verdict` found, rule by rule; nothing for what is held.
pub fn words(verdict: &Verdict) -> String {
    let judged = verdict
        .rules
        .iter()
        .filter(|judged| judged.state() != State::Held);
    let lines = judged.flat_map(|judged| {
        let findings = judged.broken.first.iter().chain(&judged.undecided.first);
        findings.map(|finding| {
            format!(
                "{} {}: {}\n",
                judged.rule.name(),
                judged.state().name(),
                finding.words
            )
        })
    });
    lines.collect()
}

/// A run of `steps`, of which nothing else is known.
pub fn run(steps: &[Step]) -> Run {
    Run::new(Recording::of(steps.to_vec()))
}

/// How a run goes, and what becomes of its spans.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// How much is done in it.
    pub deeds: usize,
    /// Which part of the events is sampled, of 1.
    pub sampled: f64,
    /// Which part of the spans is lost on its way, of 1.
    pub lost: f64,
    /// Whether programs are killed, which costs them their last spans.
    pub kills: bool,
    /// Which part of the participants traces, of 1.
    pub tracing: f64,
    /// Whether spans carry numbers.
    pub numbered: bool,
}

impl Weather {
    /// Everything is recorded.
    pub const CLEAR: Self = Self {
        deeds: 60,
        sampled: 1.0,
        lost: 0.0,
        kills: false,
        tracing: 1.0,
        numbered: true,
    };
}

/// What a run under `weather` leaves behind; follows from `seed`.
pub fn conversation(seed: u64, weather: Weather) -> Vec<Step> {
    let mut world = World::new(seed, weather);
    for _ in 0..weather.deeds {
        world.deed();
    }
    world.finish()
}

/// A program that records.
#[derive(Clone)]
struct Program {
    id: Arc<str>,
    instance: Arc<str>,
    service: Arc<str>,
    steps: u64,
    traces: bool,
}

/// An event, and the span of its ordering.
#[derive(Clone)]
struct Told {
    event: Event,
    order: Option<StepId>,
}

struct Client {
    program: Program,
    name: String,
    id: i32,
    room: Arc<str>,
    clock: LamportClock,
    epoch: String,
    session: Digest,
    incarnation: Incarnation,
    /// The last sequence that was read.
    read: u64,
    connected: bool,
    /// Its program has ended.
    gone: bool,
}

struct World {
    random: StdRng,
    weather: Weather,
    service: Service,
    server: Program,
    epochs: usize,
    rooms: BTreeMap<Arc<str>, Vec<Told>>,
    clients: Vec<Client>,
    steps: Vec<Step>,
    wall: u64,
    ids: u64,
}

/// What a step's span shows, beside the program's own.
struct Shown<'a> {
    id: StepId,
    parent: Option<SpanId>,
    act: Act,
    event: EventName,
    room: &'a str,
    epoch: &'a str,
    time: i64,
    message_time: Option<i64>,
    sequence: Option<u64>,
    participant: &'a str,
    message_id: &'a str,
    recipients: Option<u64>,
    error: &'a str,
    start: u64,
}

impl World {
    fn new(seed: u64, weather: Weather) -> Self {
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            weather,
            service: Service::new("epoch-0".into(), config::Limits::default()),
            server: server(0),
            epochs: 0,
            rooms: BTreeMap::new(),
            clients: Vec::new(),
            steps: Vec::new(),
            wall: 1_000_000,
            ids: 0,
        };
        world.arrive();
        world.arrive();
        world
    }

    fn deed(&mut self) {
        match self.random.random_range(0..100) {
            0..8 => self.arrive(),
            8..40 => self.with_one(true, Self::say),
            40..75 => self.with_one(true, |world, client| {
                let events = world.random.random_range(1..6);
                world.read(client, events);
            }),
            75..80 => self.with_one(true, |_, client| client.connected = false),
            80..86 => self.with_one(false, Self::come_back),
            86..90 => self.grace_ends(),
            90..93 => self.with_one(true, Self::leave),
            93..96 => self.with_one(true, Self::crash),
            96..98 => self.trim(),
            98 => self.restart(),
            _ => self.wipe(),
        }
    }

    /// Everybody who is connected reads what there is; some spans are lost.
    fn finish(mut self) -> Vec<Step> {
        for _ in 0..self.clients.len() {
            let mut client = self.clients.remove(0);
            if client.connected && self.random.random_bool(0.8) {
                self.read(&mut client, usize::MAX);
            }
            self.clients.push(client);
        }
        let lost = self.weather.lost;
        let random = &mut self.random;
        self.steps.retain(|_| !random.random_bool(lost));
        if !self.weather.numbered {
            for step in &mut self.steps {
                step.number = None;
            }
        }
        self.steps
    }

    /// Lets somebody do something who is (or is not) connected, if there is anybody.
    fn with_one(&mut self, connected: bool, deed: impl FnOnce(&mut Self, &mut Client)) {
        let fitting = |client: &&Client| !client.gone && client.connected == connected;
        let count = self.clients.iter().filter(fitting).count();
        if count == 0 {
            return;
        }
        let chosen = self.random.random_range(0..count);
        let place = |(_, client): &(usize, &Client)| fitting(client);
        let (place, _) = self
            .clients
            .iter()
            .enumerate()
            .filter(place)
            .nth(chosen)
            .expect("it was counted");
        let mut client = self.clients.remove(place);
        deed(self, &mut client);
        self.clients.insert(place, client);
    }

    fn arrive(&mut self) {
        self.ids += 1;
        let number = self.ids;
        // Names come again, as people do.
        let who = self.random.random_range(0..8);
        let mut client = Client {
            program: Program {
                id: "".into(),
                instance: format!("client-{number}").into(),
                service: format!("person-{who}").into(),
                steps: 0,
                traces: self.random.random_bool(self.weather.tracing),
            },
            name: format!("Person {who}"),
            id: 100 + who,
            room: if self.random.random_bool(0.8) {
                "lobby"
            } else {
                "garden"
            }
            .into(),
            clock: LamportClock::default(),
            epoch: String::new(),
            session: Digest([0; 16]),
            incarnation: Incarnation(0),
            read: 0,
            connected: false,
            gone: false,
        };
        client.program.id = client.id.to_string().into();
        self.join(&mut client);
        if client.connected {
            self.clients.push(client);
        }
    }

    fn come_back(&mut self, client: &mut Client) {
        self.join(client);
        // Whoever finds its name taken gives up.
        client.gone = !client.connected;
    }

    fn join(&mut self, client: &mut Client) {
        let start = self.now();
        let mut time = client.clock.tick();
        let newcomer = client.epoch.is_empty();
        let send = self.sampled(client.program.traces);
        self.ids += 1;
        let session = Digest::of(&[&self.ids.to_be_bytes()]);
        let action = Action::Join(Join {
            id: client.id,
            name: client.name.clone(),
            bot: false,
            session_given: Some(session),
            session_held: (!newcomer).then_some(client.session),
            resume: (!newcomer).then(|| Resume {
                epoch: client.epoch.clone(),
                after_sequence: client.read,
            }),
            backlog: 0,
        });
        let outcome = self.order(&client.room, Some(time), send, action);
        let Answer::Joined {
            incarnation,
            resumed,
            reading,
            timestamp,
            ..
        } = outcome.answer
        else {
            return;
        };
        if !newcomer && client.epoch != self.service.epoch() {
            client.clock = LamportClock::at(timestamp);
            time = 0;
        }
        client.epoch = self.service.epoch().to_owned();
        client.incarnation = incarnation;
        client.connected = true;
        if !resumed {
            client.session = session;
        }
        if !reading.recovered {
            client.read = reading.head;
        }
        if let (Some(Sent { id: Some(id), .. }), false) = (send, outcome.events.is_empty()) {
            let shown = client.shown(id, Act::Send, EventName::Join, time, start);
            self.record_of(client.program.clone(), &client.epoch, shown);
            client.program.steps += 1;
        }
    }

    fn say(&mut self, client: &mut Client) {
        let start = self.now();
        let time = client.clock.tick();
        let send = self.sampled(client.program.traces);
        self.ids += 1;
        let message_id = format!("message-{}", self.ids);
        if let Some(Sent { id: Some(id), .. }) = send {
            let shown = Shown {
                message_id: &message_id,
                ..client.shown(id, Act::Send, EventName::Message, time, start)
            };
            self.record_of(client.program.clone(), &client.epoch, shown);
            client.program.steps += 1;
        }
        if self.random.random_bool(0.05) {
            // It never arrives.
            client.connected = false;
            return;
        }
        let length = if self.random.random_bool(0.1) { 200 } else { 5 };
        let action = || Action::Say {
            id: client.id,
            incarnation: client.incarnation,
            text: "x".repeat(length),
            message_id: message_id.clone(),
        };
        let outcome = self.order(&client.room, Some(time), send, action());
        match outcome.answer {
            Answer::Refused(refused) => self.hear_refusal(client, &refused),
            Answer::Stored { .. } if self.random.random_bool(0.1) => {
                // The answer was lost, and it is sent again.
                let again = self.order(&client.room, Some(time), send, action());
                assert!(
                    matches!(again.answer, Answer::Duplicate { .. }),
                    "{again:?}"
                );
            }
            _ => {}
        }
    }

    fn hear_refusal(&mut self, client: &mut Client, refused: &Refused) {
        while client.read < refused.after {
            self.read(client, 1);
        }
        let time = client.clock.merge(refused.timestamp);
        let Some(order) = step_id(&refused.traceparent).filter(|_| client.program.traces) else {
            return;
        };
        let start = self.now();
        let id = self.child(order);
        let shown = Shown {
            parent: Some(order.span),
            message_time: Some(refused.timestamp),
            ..client.shown(id, Act::Deliver, EventName::Refusal, time, start)
        };
        self.record_of(client.program.clone(), &client.epoch, shown);
        client.program.steps += 1;
    }

    fn read(&mut self, client: &mut Client, events: usize) {
        let told = self.rooms.get(&client.room).map_or(&[][..], Vec::as_slice);
        let read = usize::try_from(client.read).unwrap();
        let unread: Vec<Told> = told.iter().skip(read).take(events).cloned().collect();
        for Told { event, order } in unread {
            client.read = event.sequence;
            let time = client.clock.merge(event.timestamp);
            let Some(order) = order.filter(|_| client.program.traces) else {
                continue;
            };
            let start = self.now();
            let id = self.child(order);
            let shown = Shown {
                parent: Some(order.span),
                message_time: Some(event.timestamp),
                sequence: Some(event.sequence),
                participant: &event.sender_name,
                message_id: &event.message_id,
                ..client.shown(id, Act::Deliver, event.kind.into(), time, start)
            };
            self.record_of(client.program.clone(), &client.epoch, shown);
            client.program.steps += 1;
        }
    }

    fn leave(&mut self, client: &mut Client) {
        let start = self.now();
        let time = client.clock.tick();
        let send = self.sampled(client.program.traces);
        if let Some(Sent { id: Some(id), .. }) = send {
            let shown = client.shown(id, Act::Send, EventName::Leave, time, start);
            self.record_of(client.program.clone(), &client.epoch, shown);
            client.program.steps += 1;
        }
        let before = self.head(&client.room) - client.read;
        let action = Action::Leave {
            id: client.id,
            incarnation: client.incarnation,
        };
        self.order(&client.room, Some(time), send, action);
        self.read(client, usize::try_from(before).unwrap());
        client.connected = false;
        client.gone = true;
    }

    fn crash(&mut self, client: &mut Client) {
        client.connected = false;
        client.gone = true;
        if self.weather.kills {
            let kept = client.program.steps - self.random.random_range(0..=client.program.steps);
            self.steps.retain(|step| {
                step.instance != client.program.instance || step.number.unwrap_or(0) <= kept
            });
        }
    }

    /// The service announces the departure of somebody who has gone.
    fn grace_ends(&mut self) {
        let away: Vec<(Arc<str>, i32, Incarnation)> = self
            .clients
            .iter()
            .filter(|client| !client.connected)
            .map(|client| (Arc::clone(&client.room), client.id, client.incarnation))
            .collect();
        for (room, id, incarnation) in away {
            // Void for those whose departure was announced.
            self.order(&room, None, None, Action::Leave { id, incarnation });
        }
        self.clients.retain(|client| !client.gone);
    }

    fn trim(&mut self) {
        let room: Arc<str> = "lobby".into();
        let first = self.head(&room).saturating_sub(1).max(1);
        self.order(&room, None, None, Action::Trim { first });
    }

    fn restart(&mut self) {
        if self.weather.kills {
            let kept = self
                .server
                .steps
                .saturating_sub(self.random.random_range(0..4));
            let instance = Arc::clone(&self.server.instance);
            self.steps
                .retain(|step| step.instance != instance || step.number.unwrap_or(0) <= kept);
        }
        self.ids += 1;
        self.server = server(self.ids);
        for client in &mut self.clients {
            client.connected = false;
        }
    }

    /// The store is gone: a new history.
    fn wipe(&mut self) {
        self.restart();
        self.epochs += 1;
        self.service = Service::new(format!("epoch-{}", self.epochs), config::Limits::default());
        self.rooms.clear();
        for client in &mut self.clients {
            client.incarnation = Incarnation(0);
        }
    }

    fn order(
        &mut self,
        room: &Arc<str>,
        timestamp: Option<i64>,
        send: Option<Sent>,
        action: Action,
    ) -> Outcome {
        let start = self.now();
        let id = match send {
            Some(Sent { id: None }) => None,
            Some(Sent { id: Some(send) }) => Some(self.child(send)),
            None => self.sampled(true).and_then(|root| root.id),
        };
        let outcome = self.service.apply(Command {
            room: Arc::clone(room),
            timestamp,
            accepted_at: UNIX_EPOCH,
            traceparent: id.map(|id| id.to_string()).unwrap_or_default(),
            action,
        });
        for event in &outcome.events {
            let told = Told {
                order: step_id(&event.traceparent),
                event: event.clone(),
            };
            self.rooms.entry(Arc::clone(room)).or_default().push(told);
        }
        if let Some(id) = id {
            let recipients = self.service.population(room) as u64;
            let parent = send.and_then(|send| send.id).map(|send| send.span);
            self.record_order(id, parent, &outcome, recipients, start);
        }
        outcome
    }

    fn record_order(
        &mut self,
        id: StepId,
        parent: Option<SpanId>,
        outcome: &Outcome,
        recipients: u64,
        start: u64,
    ) {
        let epoch = self.service.epoch().to_owned();
        let shown = |event, time| Shown {
            id,
            parent,
            act: Act::Order,
            event,
            room: "",
            epoch: "",
            time,
            message_time: None,
            sequence: None,
            participant: "",
            message_id: "",
            recipients: Some(recipients),
            error: "",
            start,
        };
        let shown = match (&outcome.answer, outcome.events.last()) {
            (_, Some(event)) => Shown {
                room: &event.room,
                message_time: event.sent_timestamp,
                sequence: Some(event.sequence),
                participant: &event.sender_name,
                message_id: &event.message_id,
                ..shown(event.kind.into(), event.timestamp)
            },
            (Answer::Refused(refused), None) => Shown {
                room: &refused.room,
                message_time: refused.sent_timestamp,
                participant: &refused.participant,
                message_id: &refused.message_id,
                recipients: Some(1),
                error: refused.refusal.name(),
                ..shown(EventName::Refusal, refused.timestamp)
            },
            _ => return,
        };
        self.record_of(self.server.clone(), &epoch, shown);
        self.server.steps += 1;
    }

    fn record_of(&mut self, program: Program, epoch: &str, shown: Shown<'_>) {
        self.wall += 1_000;
        let is_service = &*program.id == Process::SERVICE;
        self.steps.push(Step {
            id: shown.id,
            parent: shown.parent,
            act: shown.act,
            event: shown.event,
            process: Process {
                id: program.id,
                instance: if is_service {
                    "".into()
                } else {
                    Arc::clone(&program.instance)
                },
            },
            instance: program.instance,
            service: program.service,
            number: Some(program.steps + 1),
            room: shown.room.into(),
            epoch: if shown.epoch.is_empty() {
                epoch
            } else {
                shown.epoch
            }
            .into(),
            time: shown.time,
            message_time: shown.message_time,
            sequence: shown.sequence,
            participant: shown.participant.into(),
            message_id: shown.message_id.to_owned(),
            text: String::new(),
            recipients: shown.recipients,
            replayed: false,
            resumes: 0,
            error: shown.error.to_owned(),
            start: shown.start,
            end: self.wall,
        });
    }

    /// The beginning of a trace; none where nobody traces.
    fn sampled(&mut self, traces: bool) -> Option<Sent> {
        if !traces {
            return None;
        }
        self.ids += 1;
        let id = StepId {
            trace: TraceId::from(u128::from(self.ids)),
            span: SpanId::from(self.ids),
        };
        let sampled = self.random.random_bool(self.weather.sampled);
        Some(Sent {
            id: sampled.then_some(id),
        })
    }

    fn child(&mut self, of: StepId) -> StepId {
        self.ids += 1;
        StepId {
            trace: of.trace,
            span: SpanId::from(self.ids),
        }
    }

    fn now(&mut self) -> u64 {
        self.wall += 1_000;
        self.wall
    }

    fn head(&self, room: &str) -> u64 {
        self.service.extent(room).1
    }
}

/// The decision of a sender that traces: a span, or none.
#[derive(Clone, Copy)]
struct Sent {
    id: Option<StepId>,
}

impl Client {
    fn shown(&self, id: StepId, act: Act, event: EventName, time: i64, start: u64) -> Shown<'_> {
        Shown {
            id,
            parent: None,
            act,
            event,
            room: &self.room,
            epoch: "",
            time,
            message_time: None,
            sequence: None,
            participant: &self.name,
            message_id: "",
            recipients: None,
            error: "",
            start,
        }
    }
}

fn server(start: u64) -> Program {
    Program {
        id: Process::SERVICE.into(),
        instance: format!("server-{start}").into(),
        service: "chitchat-server".into(),
        steps: 0,
        traces: true,
    }
}

/// What stands in a command's `traceparent` here.
fn step_id(text: &str) -> Option<StepId> {
    let (trace, span) = text.split_once('/')?;
    Some(StepId {
        trace: TraceId::from_hex(trace).ok()?,
        span: SpanId::from_hex(span).ok()?,
    })
}
