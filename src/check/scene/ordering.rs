//! Time and order: first one message after the other, then as many at once as there are.

use std::collections::{HashMap, HashSet};

use super::{
    super::{
        participant::Participant,
        stage::{AT_HAND, SETTLE, Stage},
        verdict::{Book, Failure, Stuck},
    },
    all_hear_the_first,
};
use crate::wire::v1::ServerMessage;

/// Messages one after the other.
const STEPS: usize = 5;

/// How far ahead of the server's clock a client's is.
///
/// Small enough that a server which bounds such jumps takes it, and that the clock of a server in use comes to no harm.
const AHEAD: i64 = 1_000;

/// Messages that each participant says at once.
///
/// Source: enough that a server with a task for each recipient swapped some in every run of the tests.
const BURST: usize = 100;

pub(super) async fn play(stage: &Stage, book: &mut Book) -> Result<(), Stuck> {
    let mut ada = stage.enter("Ada").await?;
    let mut alex = stage.enter("Alex").await?;
    let mut bob = stage.enter("Bob").await?;
    let mut carol = stage.enter("Carol").await?;

    time_advances(stage, book, &mut ada).await?;
    time_merges(stage, book, &mut ada, &mut alex).await?;

    let mut people = [&mut ada, &mut alex, &mut bob, &mut carol];
    // The clocks of all have merged what there was, so that the server's is what is looked at.
    all_hear_the_first(stage, &mut people)
        .await
        .map_err(|failure| Stuck(failure.happened))?;
    burst(stage, book, &mut people).await;
    stage.bow_out([ada, alex, bob, carol]).await;
    Ok(())
}

/// Ada's clock shows 0 all the time; the server's has to advance by itself.
async fn time_advances(stage: &Stage, book: &mut Book, ada: &mut Participant) -> Result<(), Stuck> {
    let mut times = Vec::new();
    for _ in 0..STEPS {
        let text = stage.text();
        ada.say_at(&text, 0);
        match ada.read_text(&text).await {
            Ok(copy) => times.push(copy.timestamp),
            Err(missed) => {
                return Err(Stuck(format!(
                    "Ada's text did not come back: {}",
                    missed.words()
                )));
            }
        }
    }
    let outcome = if times.is_sorted_by(|earlier, later| earlier < later) {
        Ok(())
    } else {
        let expected = "each message has a later logical time than the one before";
        Err(ada.failure(expected, format!("the times were {times:?}")))
    };
    book.judge("clock-advances", outcome);
    Ok(())
}

/// Alex's clock is far ahead: the server's has to pass it, and stay there.
async fn time_merges(
    stage: &Stage,
    book: &mut Book,
    ada: &mut Participant,
    alex: &mut Participant,
) -> Result<(), Stuck> {
    let sent = ada.now().max(alex.now()) + AHEAD;
    let (text, next) = (stage.text(), stage.text());
    alex.say_at(&text, sent);
    let at_alex = alex.read_text(&text).await;
    let at_alex = at_alex.map_err(|missed| {
        Stuck(format!(
            "a text sent at {sent} did not come back: {}",
            missed.words()
        ))
    })?;
    ada.say_at(&next, 0);
    let at_ada = ada.read_text(&next).await;
    let at_ada = at_ada
        .map_err(|missed| Stuck(format!("Ada's text did not come back: {}", missed.words())))?;

    let outcome = if at_alex.timestamp <= sent {
        let expected =
            format!("a message sent at {sent} gets max(server's clock, {sent}) + 1 or later");
        Err(alex.failure(expected, format!("it got {}", at_alex.timestamp)))
    } else if at_ada.timestamp < at_alex.timestamp {
        let time = at_alex.timestamp;
        let expected = format!("after an event at {time}, no event has an earlier time");
        Err(ada.failure(expected, format!("the next one got {}", at_ada.timestamp)))
    } else {
        Ok(())
    };
    book.judge("clock-merges", outcome);
    Ok(())
}

/// Three say a hundred things each at once, and the fourth listens.
async fn burst(stage: &Stage, book: &mut Book, people: &mut [&mut Participant]) {
    let from: Vec<usize> = people.iter().map(|person| person.heard.len()).collect();
    let speakers = people.len() - 1;
    let mut said: Vec<Vec<String>> = vec![Vec::new(); speakers];
    for _ in 0..BURST {
        for (person, said) in people.iter_mut().zip(&mut said) {
            let text = stage.text();
            person.say(&text);
            said.push(text);
        }
    }
    let texts: HashSet<&str> = said.iter().flatten().map(String::as_str).collect();
    for person in people.iter_mut() {
        let mut missing = texts.clone();
        let all = |message: &ServerMessage| {
            missing.remove(message.msg_stream.trim());
            missing.is_empty()
        };
        // Who misses something is found below.
        let _ = person.read_until(all).await;
    }
    // What comes twice would come now.
    people[0].read_for(SETTLE).await;
    for person in people.iter_mut() {
        person.read_for(AT_HAND).await;
    }
    let columns: Vec<Column> = people
        .iter()
        .zip(from)
        .map(|(person, from)| Column::of(person, from, &texts))
        .collect();

    for column in &columns {
        book.judge("all-delivered-once", column.has_each_once(&texts));
    }
    let others = || columns.iter().skip(1);
    for other in others() {
        book.judge("one-order", columns[0].is_ordered_as(other));
        book.judge("one-time-per-message", columns[0].has_the_times_of(other));
    }
    if book.has_failed("clock-advances") {
        book.undecided(
            "times-unique",
            "the server's clock does not advance, see clock-advances",
        );
    }
    if book.has_failed("one-order") {
        for rule in ["order-follows-times", "sender-order-kept"] {
            book.undecided(rule, "there is no one order, see one-order");
        }
    }
    for column in &columns {
        if !book.has_failed("clock-advances") {
            book.judge("times-unique", column.has_no_time_twice());
        }
        if !book.has_failed("one-order") {
            book.judge("order-follows-times", column.has_times_in_order());
            for one in &said {
                book.judge("sender-order-kept", column.keeps_the_order_of(one));
            }
        }
    }
}

/// What one participant read of the burst.
struct Column<'a> {
    reader: &'a Participant,
    /// Text and time, in the order in which they came.
    events: Vec<(&'a str, i64)>,
    /// Where each text came first.
    places: HashMap<&'a str, usize>,
}

impl<'a> Column<'a> {
    fn of(reader: &'a Participant, from: usize, texts: &HashSet<&str>) -> Self {
        let events: Vec<_> = reader.heard[from..]
            .iter()
            .map(|message| (message.msg_stream.trim(), message.timestamp))
            .filter(|(text, _)| texts.contains(text))
            .collect();
        let mut places = HashMap::new();
        for (place, (text, _)) in events.iter().enumerate() {
            places.entry(*text).or_insert(place);
        }
        Self {
            reader,
            events,
            places,
        }
    }

    fn name(&self) -> &str {
        &self.reader.who.name
    }

    fn has_each_once(&self, texts: &HashSet<&str>) -> Result<(), Failure> {
        let lost = texts
            .iter()
            .filter(|text| !self.places.contains_key(**text));
        let lost = lost.count();
        let repeated = self.events.len() - self.places.len();
        if lost + repeated == 0 {
            return Ok(());
        }
        let expected = format!("each of {} messages reaches everybody once", texts.len());
        let happened = format!("{} missed {lost} and read {repeated} twice", self.name());
        Err(self.reader.failure(expected, happened))
    }

    /// What both have read, they have read in one order.
    fn is_ordered_as(&self, other: &Self) -> Result<(), Failure> {
        let mut last: Option<(&str, usize)> = None;
        for (place, (text, _)) in self.events.iter().enumerate() {
            if self.places[text] != place {
                continue;
            }
            let Some(&there) = other.places.get(text) else {
                continue;
            };
            if let Some((before, last)) = last
                && there < last
            {
                let happened = format!(
                    "{} read {before:?} before {text:?}, {} read it after",
                    self.name(),
                    other.name()
                );
                return Err(Failure::new(
                    "all read the same messages in the same order",
                    happened,
                ));
            }
            last = Some((text, there));
        }
        Ok(())
    }

    fn has_the_times_of(&self, other: &Self) -> Result<(), Failure> {
        for (text, &place) in &self.places {
            let Some(&there) = other.places.get(text) else {
                continue;
            };
            let (here, there) = (self.events[place].1, other.events[there].1);
            if here != there {
                let happened = format!(
                    "{text:?} has the time {here} at {}, and {there} at {}",
                    self.name(),
                    other.name()
                );
                let expected = "a message has one logical time, the same for all who read it";
                return Err(Failure::new(expected, happened));
            }
        }
        Ok(())
    }

    fn has_no_time_twice(&self) -> Result<(), Failure> {
        let mut seen = HashMap::new();
        for &(text, time) in &self.events {
            if let Some(other) = seen.insert(time, text)
                && other != text
            {
                let happened = format!("{other:?} and {text:?} both have the time {time}");
                return Err(Failure::new(
                    "no two messages have the same logical time",
                    happened,
                ));
            }
        }
        Ok(())
    }

    fn has_times_in_order(&self) -> Result<(), Failure> {
        for pair in self.events.windows(2) {
            let ((before, earlier), (after, later)) = (pair[0], pair[1]);
            if later < earlier {
                let happened = format!(
                    "{} read {before:?} (L={earlier}) before {after:?} (L={later})",
                    self.name()
                );
                let expected = "messages come in the order of their logical times";
                return Err(Failure::new(expected, happened));
            }
        }
        Ok(())
    }

    fn keeps_the_order_of(&self, said: &[String]) -> Result<(), Failure> {
        let places = said
            .iter()
            .filter_map(|text| self.places.get(text.as_str()).map(|place| (text, place)));
        let places: Vec<_> = places.collect();
        for pair in places.windows(2) {
            if pair[1].1 < pair[0].1 {
                let happened = format!(
                    "{} read {:?} before {:?}, which was said first",
                    self.name(),
                    pair[1].0,
                    pair[0].0
                );
                let expected = "what one participant says comes in the order in which it was said";
                return Err(Failure::new(expected, happened));
            }
        }
        Ok(())
    }
}
