//! Gives all commands one order, and carries each through the rules, the journal and the feed.
//!
//! `local`: a queue inside this process and one [`Sequencer`] that owns the state, so that there is nothing to lock.
//! Whatever waits is taken as one batch: folded, stored, answered, made visible. Nobody is told or sees what is not
//! stored. No timer fills a batch: while one is being stored the next one gathers, and an idle order answers at once.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::UNIX_EPOCH,
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    feed::{Feed, Feeds},
    journal::{Batch, Dropped, Entry, Extent, Fault, Writer},
    room::{Action, Answer, Command, Outcome, Service},
    telemetry::{
        EventName, Facts, Step,
        log::{self, ServerLog},
    },
    wire,
};

/// Commands that may wait for their turn.
///
/// Unit: commands of at most `limits.message_bytes` each, so 32 MiB at the worst. When full: whoever has one more waits,
/// and so does not read more from its own connection.
const QUEUE_COMMANDS: usize = 4_096;

/// Commands that are stored and made visible together.
///
/// When reached: the rest waits in the queue for the next batch. More at once would only delay the answer to the first.
const BATCH_COMMANDS_MAX: usize = 1_024;

/// The queue's inlet. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Order {
    jobs: mpsc::Sender<Job>,
    clock: Arc<AtomicI64>,
}

/// What the queue carries.
enum Job {
    Command(Box<Submission>),
    /// A look at the state between two commands.
    Look(Box<dyn FnOnce(&Service) + Send>),
    /// The last job.
    Stop,
}

/// A command on its way.
struct Submission {
    command: Command,
    /// The server's step of its trace; ends when it is stored and handed out.
    span: Step,
    reply: Reply,
}

/// Hears what became of a command, once it is stored and before its events can be read; must not block.
pub type Reply = Box<dyn FnOnce(Outcome) + Send>;

/// The order does not take commands any more: the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server is stopping")]
pub struct Stopped;

impl Order {
    /// An order over `service`, and its sequencer, which its owner must run.
    #[must_use]
    pub fn local(
        service: Service,
        writer: Writer,
        feeds: Feeds,
        log: ServerLog,
    ) -> (Self, Sequencer) {
        let (sender, jobs) = mpsc::channel(QUEUE_COMMANDS);
        let clock = Arc::new(AtomicI64::new(service.now()));
        let sequencer = Sequencer {
            threaded: writer.blocks(),
            jobs,
            service,
            writer,
            feeds,
            log,
            clock: Arc::clone(&clock),
            scratch: Vec::new(),
            stopping: false,
        };
        let order = Self {
            jobs: sender,
            clock,
        };
        (order, sequencer)
    }

    /// What the service's clock shows, as of the last command that was answered.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.clock.load(Ordering::Acquire)
    }

    /// Queues a command; `reply` hears what became of it, after everything that was queued before.
    ///
    /// # Errors
    ///
    /// [`Stopped`]; then `reply` is dropped unheard.
    pub async fn submit(&self, command: Command, span: Step, reply: Reply) -> Result<(), Stopped> {
        let submission = Submission {
            command,
            span,
            reply,
        };
        self.jobs
            .send(Job::Command(Box::new(submission)))
            .await
            .map_err(|_| Stopped)
    }

    /// Queues a command and waits for what becomes of it.
    ///
    /// # Errors
    ///
    /// [`Stopped`]
    pub async fn ask(&self, command: Command, span: Step) -> Result<Outcome, Stopped> {
        let (sender, outcome) = oneshot::channel();
        let reply = Box::new(move |outcome| {
            // Whoever asked may have gone away; the command counts all the same.
            let _ = sender.send(outcome);
        });
        self.submit(command, span, reply).await?;
        outcome.await.map_err(|_| Stopped)
    }

    /// Looks at the state as it is after everything that was queued before.
    ///
    /// # Errors
    ///
    /// [`Stopped`]
    pub async fn look<T, F>(&self, look: F) -> Result<T, Stopped>
    where
        T: Send + 'static,
        F: FnOnce(&Service) -> T + Send + 'static,
    {
        let (sender, seen) = oneshot::channel();
        let job = Job::Look(Box::new(move |service| {
            let _ = sender.send(look(service));
        }));
        self.jobs.send(job).await.map_err(|_| Stopped)?;
        seen.await.map_err(|_| Stopped)
    }

    /// Ends the order, after everything that was queued before, whoever still holds an inlet to it.
    pub async fn stop(&self) {
        // Fails when it has ended already.
        let _ = self.jobs.send(Job::Stop).await;
    }
}

/// The one place where commands meet the state.
pub struct Sequencer {
    jobs: mpsc::Receiver<Job>,
    service: Service,
    writer: Writer,
    feeds: Feeds,
    log: ServerLog,
    clock: Arc<AtomicI64>,
    /// What events are encoded in.
    scratch: Vec<u8>,
    /// Whether it runs on a thread of its own.
    threaded: bool,
    /// Whether it was told to end.
    stopping: bool,
}

/// A command that has been folded and waits to be stored.
struct Folded {
    outcome: Outcome,
    /// How many participants the room has after it.
    recipients: usize,
    span: Step,
    reply: Reply,
    /// The room's feed, if it has something new.
    feed: Option<Arc<Feed>>,
}

/// What a batch of commands has changed of the state, beside the clock.
#[derive(Default)]
struct Changed {
    rooms: BTreeSet<Arc<str>>,
    members: BTreeSet<(Arc<str>, i32)>,
}

impl Sequencer {
    /// Stores in its task, whatever that waits for: see [`Server::without_threads`](crate::server::Server::without_threads).
    pub(crate) fn stay_in_task(&mut self) {
        self.threaded = false;
    }

    /// Carries commands until it is told to stop, all clones of the inlet are dropped, or storing fails.
    ///
    /// Where storing waits for a disk this runs on a thread of its own, which ends likewise if this future is dropped.
    ///
    /// # Errors
    ///
    /// What the journal says when it cannot store or read. Whoever waited for an answer then hears [`Stopped`]: nothing
    /// of the batch was told to anybody. The process is to end, and to find out from the disk what is true.
    pub async fn run(self) -> Result<(), Fault> {
        if !self.threaded {
            return self.run_as_task().await;
        }
        match tokio::task::spawn_blocking(|| self.run_as_thread()).await {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime ends, and this future with it.
            Err(_) => std::future::pending().await,
        }
    }

    async fn run_as_task(mut self) -> Result<(), Fault> {
        let mut batch = Vec::with_capacity(BATCH_COMMANDS_MAX);
        while !self.stopping && self.jobs.recv_many(&mut batch, BATCH_COMMANDS_MAX).await > 0 {
            self.process(&mut batch)?;
        }
        self.writer.close()
    }

    fn run_as_thread(mut self) -> Result<(), Fault> {
        let mut batch = Vec::with_capacity(BATCH_COMMANDS_MAX);
        while !self.stopping && self.jobs.blocking_recv_many(&mut batch, BATCH_COMMANDS_MAX) > 0 {
            self.process(&mut batch)?;
        }
        self.writer.close()
    }

    fn process(&mut self, batch: &mut Vec<Job>) -> Result<(), Fault> {
        let mut folded = Vec::with_capacity(batch.len());
        let mut looks = Vec::new();
        let mut changed = Changed::default();
        for job in batch.drain(..) {
            match job {
                Job::Command(submission) => folded.push(self.fold(*submission, &mut changed)?),
                Job::Look(look) => looks.push(look),
                Job::Stop => self.stopping = true,
            }
        }
        let stored = self.store(&folded, changed)?;
        self.clock.store(self.service.now(), Ordering::Release);
        // Answers before events: a notice is in its subscriber's outbox, and a leaver's stream has its end, before the
        // events that they must not come after are there to be read.
        for done in folded {
            done.finish(self.service.epoch(), self.log);
        }
        self.show(stored);
        for look in looks {
            look(&self.service);
        }
        Ok(())
    }

    fn fold(&mut self, submission: Submission, changed: &mut Changed) -> Result<Folded, Fault> {
        let room = submission.command.room.clone();
        if submission.command.action.may_be_retry()
            && let Some(after) = self.service.forgotten(&room)
        {
            let past = self.writer.past(&room, after)?;
            self.service.recall(&room, past);
        }
        let before = self.service.extent(&room);
        let outcome = self.service.apply(submission.command);
        let feed = (self.service.extent(&room) != before).then(|| self.feeds.open(&room));
        if let Some(feed) = &feed {
            changed.rooms.insert(Arc::clone(feed.room()));
        }
        if let Some(id) = whose_membership(&outcome) {
            changed.members.insert((Arc::clone(&room), id));
        }
        Ok(Folded {
            outcome,
            recipients: self.service.population(&room),
            span: submission.span,
            reply: submission.reply,
            feed,
        })
    }

    /// Makes the batch safe; nobody has seen it yet.
    fn store(
        &mut self,
        folded: &[Folded],
        changed: Changed,
    ) -> Result<Vec<(Arc<Feed>, Entry)>, Fault> {
        let mut stored = Vec::with_capacity(folded.len());
        for done in folded {
            let Some(feed) = &done.feed else { continue };
            stored.extend(done.outcome.events.iter().map(|event| {
                let entry = Entry {
                    room: Arc::clone(feed.room()),
                    sequence: event.sequence,
                    frame: wire::frame(event, &mut self.scratch),
                };
                (Arc::clone(feed), entry)
            }));
        }
        let entries = stored.iter().map(|(_, entry)| entry.clone()).collect();
        let dropped = self.writer.store(self.batch(entries, changed))?;
        for Dropped { room, first } in dropped {
            // No logical time passes: what is dropped from a history is no event of it.
            let _ = self.service.apply(Command {
                room,
                timestamp: None,
                accepted_at: UNIX_EPOCH,
                traceparent: String::new(),
                action: Action::Trim { first },
            });
        }
        Ok(stored)
    }

    /// Makes stored events visible, and wakes each room's readers once.
    fn show(&self, stored: Vec<(Arc<Feed>, Entry)>) {
        let mut feeds = Vec::new();
        for (feed, entry) in stored {
            if feed.append(entry.sequence, entry.frame) {
                feeds.push(feed);
            }
        }
        self.feeds.show(feeds);
    }

    fn batch(&self, entries: Vec<Entry>, changed: Changed) -> Batch {
        let rooms = changed.rooms.into_iter().map(|room| {
            let (first, head) = self.service.extent(&room);
            let oldest = self.service.oldest(&room);
            Extent {
                room,
                head,
                first,
                oldest,
            }
        });
        let members = changed.members.into_iter().map(|(room, id)| {
            let member = self.service.member(&room, id).cloned();
            (room, id, member)
        });
        Batch {
            entries,
            rooms: rooms.collect(),
            members: members.collect(),
            clock: self.service.now(),
            incarnations: self.service.incarnations(),
        }
    }
}

/// The participant that came, continued or went.
fn whose_membership(outcome: &Outcome) -> Option<i32> {
    match (&outcome.answer, outcome.events.last()) {
        (Answer::Joined { id, .. }, _) => Some(*id),
        (Answer::Left { .. }, Some(leave)) => Some(leave.sender_id),
        _ => None,
    }
}

impl Folded {
    /// It is stored: log it, end its span, tell whoever asked.
    fn finish(self, epoch: &str, log: ServerLog) {
        for event in &self.outcome.events {
            log.event(&log::Event {
                event: event.kind.into(),
                participant: &event.sender_name,
                id: event.sender_id,
                lamport_time: event.timestamp,
                room: &event.room,
                sequence: event.sequence,
                text: &event.text,
            });
        }
        if let Answer::Refused(refused) = &self.outcome.answer {
            log.event(&log::Event {
                event: EventName::Refusal,
                participant: &refused.participant,
                id: refused.id,
                lamport_time: refused.timestamp,
                room: &refused.room,
                sequence: 0,
                text: &refused.words,
            });
        }
        if let Some(facts) = facts(&self.outcome, self.recipients, epoch) {
            self.span.end(&facts);
        }
        (self.reply)(self.outcome);
    }
}

/// What the span of a command shows; none where nothing happened in logical time.
fn facts<'a>(outcome: &'a Outcome, recipients: usize, epoch: &'a str) -> Option<Facts<'a>> {
    let server = Facts {
        process_id: SERVER_PROCESS,
        epoch,
        ..Facts::default()
    };
    match (&outcome.answer, outcome.events.last()) {
        (_, Some(event)) => Some(Facts {
            event: event.kind.into(),
            lamport_time: event.timestamp,
            lamport_message_time: event.sent_timestamp,
            participant: &event.sender_name,
            message_id: &event.message_id,
            sequence: event.sequence,
            text: event.said(),
            recipients: Some(recipients),
            ..server
        }),
        (Answer::Refused(refused), None) => Some(Facts {
            event: EventName::Refusal,
            lamport_time: refused.timestamp,
            lamport_message_time: refused.sent_timestamp,
            participant: &refused.participant,
            message_id: &refused.message_id,
            recipients: Some(1),
            text: &refused.words,
            error: Some(refused.refusal.name()),
            ..server
        }),
        _ => None,
    }
}

/// The service's `lamport.process.id`.
const SERVER_PROCESS: &str = "server";
