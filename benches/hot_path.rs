//! What the steps of one message cost inside the server: decoding it, the rules, encoding its event, the feed.
//!
//! ```text
//! cargo bench --bench hot_path                         time
//! cargo bench --bench hot_path -- feed                 time, of what has this word in its name
//! cargo bench --bench hot_path -- instructions         instructions, which hardly differ between runs; needs valgrind
//! cargo bench --bench hot_path -- instructions fold
//! ```
//!
//! # Method
//!
//! - What a step works on is made before, and what it returns is dropped after; neither is measured.
//! - What is counted is events, and for readers deliveries: `item/s`, and instructions for each. Divan's times are of one
//!   event too in `decode`, `fold` and `encode`, but of all events of one batch, or of all that is read, in `feed`.
//! - Messages are as our clients send them: a text of 100 characters, a UUID as `message_id`, a span. A room remembers as
//!   many ids, and a feed holds as many bytes, as the settings allow, so that each event also lets go of an old one.
//! - Instructions are counted by callgrind in two runs of this program. Both prepare the same; one does the work as well,
//!   and the difference is what the work took.
//!
//! To see where they go, build it with its symbols, and look at what one kind of work does:
//!
//! ```text
//! cargo rustc --bench hot_path --profile bench -- -C strip=none
//! valgrind --tool=callgrind $(ls -t target/release/deps/hot_path-*[0-9a-f] | head -1) once 'fold: ASCII' done
//! callgrind_annotate callgrind.out.*
//! ```
//!
//! # Caveats
//!
//! - One thread: no lock is ever waited for, and caches are warmer than in a server that has other things to do.
//! - Instructions tell whether a change does more or less; they are not time. Valgrind offers the program no SHA
//!   instructions: a fold with a `message_id`, which hashes twice, takes fewer on a processor that has them.

use std::{
    env,
    fmt::{self, Display},
    hint::black_box,
    io,
    process::{self, Command as Process, Stdio},
    sync::Arc,
    task::{Context, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};
use chitchat::{
    config::Limits,
    feed::{Feed, Feeds, Read, Reader},
    room::{Action, Answer, Command, Event, Incarnation, Join, Kind, Service},
    wire::{
        self, Frame,
        v1::{EventType, JoinMsgLeave},
    },
};
use divan::{Bencher, counter::ItemsCount};
use prost::Message as _;

/// All that is measured, by the names of the functions that time it.
const GROUPS: [(&str, &[Work]); 4] = [
    ("decode", &DECODE),
    ("fold", &FOLD),
    ("encode", &ENCODE),
    ("feed", &FEED),
];

const DECODE: [Work; 1] = [Work("JoinMsgLeave", decode_message)];

const FOLD: [Work; 4] = [
    Work("ASCII", |meter| fold_texts(meter, ASCII, false)),
    Work("ASCII, message_id", |meter| fold_texts(meter, ASCII, true)),
    Work("not ASCII", |meter| fold_texts(meter, NOT_ASCII, false)),
    Work("refused", |meter| {
        fold_texts(meter, &"x".repeat(354), false)
    }),
];

const ENCODE: [Work; 2] = [
    Work("wire::frame", encode_directly),
    Work("Frame::of(wire::event)", encode_by_message),
];

const FEED: [Work; 6] = [
    Work("append batches of 1", |meter| append_batches(meter, 1)),
    Work("append batches of 16", |meter| append_batches(meter, 16)),
    Work("append batches of 256", |meter| append_batches(meter, 256)),
    Work("100 readers, batches of 1", |meter| keep_up(meter, 1)),
    Work("100 readers, batches of 16", |meter| keep_up(meter, 16)),
    Work("1 reader, 1000 behind", fall_behind),
];

#[divan::bench(args = DECODE, sample_size = 256)]
fn decode(bencher: Bencher, work: Work) {
    work.measure(Meter::Time(bencher));
}

#[divan::bench(args = FOLD, sample_size = 256)]
fn fold(bencher: Bencher, work: Work) {
    work.measure(Meter::Time(bencher));
}

#[divan::bench(args = ENCODE, sample_size = 256)]
fn encode(bencher: Bencher, work: Work) {
    work.measure(Meter::Time(bencher));
}

#[divan::bench(args = FEED, sample_size = 16)]
fn feed(bencher: Bencher, work: Work) {
    work.measure(Meter::Time(bencher));
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).filter(|it| it != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["instructions"] => print_instructions(""),
        ["instructions", filter] => print_instructions(filter),
        ["once", name, stage] => run_once(name, stage),
        _ => {
            divan::main();
            Ok(())
        }
    }
}

/// A kind of work: its name within its group, and how it is measured.
#[derive(Clone, Copy)]
struct Work(&'static str, fn(Meter));

impl Work {
    fn measure(self, meter: Meter) {
        (self.1)(meter);
    }
}

impl Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What measures a kind of work.
enum Meter<'a, 'b> {
    /// Divan's clock.
    Time(Bencher<'a, 'b>),
    /// Callgrind, under which this process runs and which counts all of it, the work too if that is to be done.
    Instructions { done: bool },
}

/// The fewest events over which instructions are counted; what happens once hardly shows then.
const COUNTED_EVENTS: usize = 1_024;

impl Meter<'_, '_> {
    /// Measures `work`, which each input gives `events` events to do.
    fn measure<I, O>(
        self,
        events: usize,
        mut input: impl FnMut() -> I,
        mut work: impl FnMut(I) -> O,
    ) {
        let done = match self {
            Self::Time(bencher) => {
                return bencher
                    .counter(ItemsCount::new(events))
                    .with_inputs(input)
                    .bench_local_values(work);
            }
            Self::Instructions { done } => done,
        };
        let turns = COUNTED_EVENTS.div_ceil(events);
        println!("{}", turns * events);
        let inputs: Vec<I> = (0..turns).map(|_| input()).collect();
        let mut outputs = Vec::with_capacity(turns);
        if done {
            outputs.extend(inputs.into_iter().map(|input| work(black_box(input))));
            black_box(&outputs);
        }
        // At once: what is there now is dropped in neither run.
        process::exit(0);
    }
}

fn print_instructions(filter: &str) -> anyhow::Result<()> {
    let mut names = names();
    names.retain(|(name, _)| name.contains(filter));
    ensure!(
        !names.is_empty(),
        "nothing that is measured has {filter:?} in its name"
    );
    for (name, _) in names {
        let (prepared, events) = count(&name, "prepared")?;
        let (done, _) = count(&name, "done")?;
        let each = done.saturating_sub(prepared) / events;
        println!("{name:<32} {each:>8} instructions");
    }
    Ok(())
}

/// All kinds of work, by their full names.
fn names() -> Vec<(String, Work)> {
    let named = |(group, works): (&str, &'static [Work])| {
        let group = group.to_owned();
        works
            .iter()
            .map(move |work| (format!("{group}: {work}"), *work))
    };
    GROUPS.into_iter().flat_map(named).collect()
}

/// The instructions of a whole run of this program, and how many events it has prepared.
fn count(name: &str, stage: &str) -> anyhow::Result<(u64, u64)> {
    let run = Process::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().context("this program does not know its own path")?)
        .args(["once", name, stage])
        .stdin(Stdio::null())
        .output();
    let run = match run {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "valgrind, which counts the instructions, is not installed (Debian's package is called valgrind). Times need \
             nothing: cargo bench --bench hot_path"
        ),
        run => run.context("valgrind does not start")?,
    };
    let (said, told) = (
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr),
    );
    ensure!(
        run.status.success(),
        "{name:?} failed under valgrind ({}): {told}",
        run.status
    );
    let counted = told
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, instructions) =
        counted.with_context(|| format!("valgrind told no count of instructions: {told}"))?;
    Ok((instructions.trim().parse()?, said.trim().parse()?))
}

/// What runs under valgrind.
fn run_once(name: &str, stage: &str) -> anyhow::Result<()> {
    let (_, work) = names()
        .into_iter()
        .find(|(known, _)| known == name)
        .with_context(|| format!("nothing that is measured is called {name:?}"))?;
    work.measure(Meter::Instructions {
        done: stage == "done",
    });
    Ok(())
}

const ROOM: &str = "lobby";

/// 100 bytes, as in the other benchmarks.
const ASCII: &str = "I will try to type a message that is neither long nor short, a hundred characters exactly, as here.!";

/// 100 characters too.
const NOT_ASCII: &str = "Jeg vil prøve at skrive en besked, som hverken er lang eller kort: på tegnet nøjagtigt hundrede. 🦀🦀🦀";

const TRACEPARENT: &str = "00-dbd8bc682b78f20bda7faa4d2e573c53-2c288a8d0f380660-01";

/// A UUID.
fn message_id(number: u64) -> String {
    format!("{number:08x}-3f2a-4c1b-9d0e-5a6b7c8d9e0f")
}

fn accepted_at() -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(1_795_522_411_929_856_793)
}

fn decode_message(meter: Meter) {
    let message = JoinMsgLeave {
        timestamp: 1_000_000,
        msg: ASCII.into(),
        r#type: EventType::Message.into(),
        message_id: message_id(1),
        traceparent: TRACEPARENT.into(),
        ..JoinMsgLeave::default()
    };
    let bytes = message.encode_to_vec();
    meter.measure(1, || (), |()| JoinMsgLeave::decode(black_box(&*bytes)));
}

/// One participant says `text` again and again, in a room that remembers as many ids as it may.
fn fold_texts(meter: Meter, text: &str, with_ids: bool) {
    let room: Arc<str> = ROOM.into();
    let (mut service, id, incarnation) = service_with_ada(&room);
    let mut number = 0;
    let mut say = || {
        number += 1;
        let action = Action::Say {
            id,
            incarnation,
            text: text.to_owned(),
            message_id: if with_ids {
                message_id(number)
            } else {
                String::new()
            },
        };
        command(&room, action, number)
    };
    if with_ids {
        for _ in 0..Limits::default().dedup_events {
            service.apply(say());
        }
    }
    meter.measure(1, say, |command| service.apply(command));
}

fn service_with_ada(room: &Arc<str>) -> (Service, i32, Incarnation) {
    let mut service = Service::new("0123456789abcdef0123456789abcdef".into(), Limits::default());
    let join = Action::Join(Join {
        id: 1,
        name: "Ada".into(),
        bot: false,
        session_given: None,
        session_held: None,
        resume: None,
        backlog: 0,
    });
    match service.apply(command(room, join, 0)).answer {
        Answer::Joined {
            id, incarnation, ..
        } => (service, id, incarnation),
        other => panic!("Ada can join an empty room: {other:?}"),
    }
}

fn command(room: &Arc<str>, action: Action, number: u64) -> Command {
    Command {
        room: Arc::clone(room),
        timestamp: i64::try_from(number).ok(),
        accepted_at: accepted_at(),
        traceparent: TRACEPARENT.into(),
        action,
    }
}

fn encode_directly(meter: Meter) {
    let event = event();
    let mut scratch = Vec::new();
    meter.measure(1, || (), |()| wire::frame(black_box(&event), &mut scratch));
}

/// As the server would without [`wire::frame`].
fn encode_by_message(meter: Meter) {
    let event = event();
    meter.measure(1, || (), |()| Frame::of(&wire::event(black_box(&event))));
}

fn event() -> Event {
    Event {
        room: ROOM.into(),
        sequence: 1_000_000,
        timestamp: 2_000_000,
        kind: Kind::Message,
        sender_id: 282_586_598,
        sender_name: "Ada".into(),
        bot: false,
        text: ASCII.into(),
        message_id: message_id(1),
        sent_timestamp: Some(1_999_999),
        accepted_at: accepted_at(),
        traceparent: TRACEPARENT.into(),
    }
}

/// A feed, and how far it is.
struct Publisher {
    feeds: Feeds,
    feed: Arc<Feed>,
    sequence: u64,
}

impl Publisher {
    fn new() -> Self {
        let feeds = Feeds::new(1, Limits::default().feed_bytes);
        Self {
            feed: feeds.open(ROOM),
            feeds,
            sequence: 0,
        }
    }

    /// One whose feed holds as much as it may, from batches of so many events.
    fn full(batch: usize) -> Self {
        let mut publisher = Self::new();
        let enough = Limits::default().feed_bytes / Frame::of(&wire::event(&event())).len();
        for _ in 0..enough / batch {
            publisher.publish(frames(batch));
        }
        publisher
    }

    fn publish(&mut self, frames: Vec<Frame>) {
        for frame in frames {
            self.sequence += 1;
            self.feed.append(self.sequence, frame);
        }
        self.feeds.show([Arc::clone(&self.feed)]);
    }
}

/// So many events, each in memory of its own, as they come from encoding.
fn frames(events: usize) -> Vec<Frame> {
    let event = event();
    let mut scratch = Vec::new();
    (0..events)
        .map(|_| wire::frame(&event, &mut scratch))
        .collect()
}

fn append_batches(meter: Meter, batch: usize) {
    let mut publisher = Publisher::full(batch);
    meter.measure(batch, || frames(batch), |frames| publisher.publish(frames));
}

/// A batch is shown to 100 readers who wait for it; each takes it and waits again.
fn keep_up(meter: Meter, batch: usize) {
    let mut publisher = Publisher::full(batch);
    let readers: Vec<Reader> = (0..100).map(|_| publisher.feed.subscribe()).collect();
    let context = Context::from_waker(Waker::noop());
    let work = |frames| {
        let cursor = publisher.sequence;
        publisher.publish(frames);
        for reader in &readers {
            black_box(read_all(reader, cursor));
            let waits = reader.poll_beyond(publisher.sequence, &context);
            assert!(waits.is_pending(), "all is read");
        }
    };
    meter.measure(batch * readers.len(), || frames(batch), work);
}

/// One reader finds 1,000 events, each of a batch of its own.
fn fall_behind(meter: Meter) {
    const EVENTS: usize = 1_000;
    let input = || {
        let mut publisher = Publisher::new();
        for _ in 0..EVENTS {
            publisher.publish(frames(1));
        }
        publisher.feed.subscribe()
    };
    meter.measure(EVENTS, input, |reader| {
        black_box(read_all(&reader, 0));
        reader
    });
}

/// Reads what is there after the event `cursor`; how many bytes that were.
fn read_all(reader: &Reader, mut cursor: u64) -> usize {
    let head = reader.head();
    let mut bytes = 0;
    while cursor < head {
        match reader.read(cursor, head) {
            Read::Events(events, last) => {
                bytes += black_box(events).len();
                cursor = last;
            }
            Read::Behind => panic!("the feed holds what was just published"),
        }
    }
    bytes
}
