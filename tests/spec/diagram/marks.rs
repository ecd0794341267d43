//! What is marked, and what is not: lost spans, restarts, late deliveries, concurrency.

use std::collections::BTreeSet;

use chitchat::{
    causality::{
        diagram::{self, Format, Options},
        happened_before::HappenedBefore,
        run::{Index, Run},
        step::{Act, Process, Recording, Step},
    },
    telemetry::EventName,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{draw, svg};
use crate::support::{
    chance,
    drawn::{self, Drawn, Point},
    spans::conversation,
};

/// A second, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

fn talk(participants: usize, messages: usize) -> Vec<Step> {
    conversation(participants, messages, 1_790_000_000 * SECOND, SECOND)
}

fn marked<'a>(drawn: &'a Drawn, mark: &'a str) -> Vec<&'a Point> {
    let steps = drawn.steps.values();
    steps.filter(|step| step.marks.contains(mark)).collect()
}

/// Where the `nth` step is that acts so.
fn nth(steps: &[Step], act: Act, nth: usize) -> usize {
    let mut found = (0..steps.len()).filter(|&index| steps[index].act == act);
    found.nth(nth).unwrap()
}

#[test]
fn nothing_is_marked_in_a_run_without_a_fault() {
    let drawn = svg(talk(3, 12));
    for mark in ["lost", "late", "replayed", "concurrent"] {
        assert_eq!(marked(&drawn, mark), Vec::<&Point>::new(), "{mark}");
    }
    let marks: BTreeSet<_> = drawn.arrows.iter().flat_map(|one| &one.marks).collect();
    assert_eq!(marks, BTreeSet::new());
    assert!(drawn.lifelines.values().all(|line| line.breaks.is_empty()));
}

#[test]
fn an_ordering_whose_span_is_lost_leaves_a_hollow_point_at_its_time_and_dashed_arrows() {
    let mut steps = talk(3, 6);
    let lost = steps.remove(nth(&steps, Act::Order, 3));

    let drawn = svg(steps);

    let hollow = marked(&drawn, "lost");
    assert_eq!(hollow.len(), 1);
    assert_eq!(
        (hollow[0].lifeline, hollow[0].time, hollow[0].act.as_str()),
        (0, lost.time, "order")
    );
    let dashed = drawn.arrows.iter();
    let dashed = dashed.filter(|arrow| arrow.marks.contains("lost"));
    assert_eq!(dashed.count(), 1 + 3, "one to it, three from it");
}

#[test]
fn a_sending_whose_span_is_lost_stands_on_its_sender_s_line() {
    let mut steps = talk(3, 6);
    let lost = steps.remove(nth(&steps, Act::Send, 4));

    let drawn = svg(steps);

    let hollow = marked(&drawn, "lost");
    assert_eq!(hollow.len(), 1);
    assert_eq!(
        (hollow[0].process.as_str(), hollow[0].time),
        (&*lost.process.id, lost.time)
    );
}

#[test]
fn who_is_known_by_a_lost_span_alone_has_a_line() {
    let mut steps = talk(2, 4);
    steps.retain(|step| &*step.process.id != "1002");
    let drawn = svg(steps);
    assert_eq!(drawn.line("Participant 2").process, "");
    assert_eq!(marked(&drawn, "lost").len(), 2, "what it sent");
}

#[test]
fn a_message_that_never_arrived_is_an_arrow_to_nowhere() {
    let mut steps = talk(2, 3);
    let order = nth(&steps, Act::Order, 2);
    steps.truncate(order);
    let drawn = svg(steps);
    let to_nowhere: Vec<_> = drawn
        .arrows
        .iter()
        .filter(|one| one.to.is_empty())
        .collect();
    assert_eq!(to_nowhere.len(), 1);
    assert!(to_nowhere[0].marks.contains("lost"));
}

#[test]
fn a_delivery_is_late_from_half_a_second_beyond_that_participant_s_fastest() {
    for (later, is_late) in [(499_999_999, false), (500_000_000, true)] {
        let mut steps = talk(3, 6);
        // Its machine's clock is an hour ahead, which is no lateness.
        for step in steps.iter_mut().filter(|step| &*step.process.id == "1002") {
            step.start += 3600 * SECOND;
            step.end += 3600 * SECOND;
        }
        let delivery = nth(&steps, Act::Deliver, 7);
        assert_eq!(&*steps[delivery].process.id, "1002");
        steps[delivery].start += later;
        let drawn = svg(steps);
        assert_eq!(
            marked(&drawn, "late").len(),
            usize::from(is_late),
            "{later}"
        );
    }
}

/// What is told is no guess: a replay is marked as that however fast it was, and is not late however slow.
#[test]
fn a_resume_is_a_gap_in_the_line_and_what_was_replayed_is_told_from_what_was_late() {
    let mut steps = talk(3, 6);
    let (replayed, live) = (nth(&steps, Act::Deliver, 7), nth(&steps, Act::Deliver, 10));
    let participant = steps[replayed].process.clone();
    assert_eq!(steps[live].process, participant);
    steps[replayed].replayed = true;
    steps[replayed].start += SECOND;
    steps[live].start += SECOND;
    let resumed = steps[replayed].time;
    for step in &mut steps {
        step.resumes = u64::from(step.process == participant && step.time >= resumed);
    }

    let drawn = svg(steps.clone());
    for (mark, delivery) in [("replayed", replayed), ("late", live)] {
        let marked = marked(&drawn, mark);
        let span = steps[delivery].id.span.to_string();
        assert_eq!(marked.len(), 1, "{mark}");
        assert_eq!(
            (marked[0].time, &marked[0].span),
            (steps[delivery].time, &span)
        );
        let arrows = drawn.arrows.iter().filter(|one| one.marks.contains(mark));
        assert_eq!(arrows.count(), 1, "{mark}");
    }
    assert_eq!(drawn.line("Participant 2").resumes, [resumed]);
    assert_eq!(drawn.line("Participant 1").resumes, [0; 0]);
    let text = draw(steps.clone(), Format::Text);
    for words in [
        "(Participant 2 came back)",
        "(replayed: Participant 2)",
        "(late: Participant 2)",
    ] {
        assert_eq!(text.matches(words).count(), 1, "{words} in {text}");
    }
    let mermaid = draw(steps, Format::Mermaid);
    assert!(mermaid.contains("Note over p2: came back"), "{mermaid}");
    assert!(mermaid.contains("] replayed\n"), "{mermaid}");
}

#[test]
fn a_client_that_starts_again_is_another_process_and_the_service_is_not() {
    let mut steps = talk(2, 8);
    let mut restart = None;
    for step in &mut steps {
        if step.id.trace.to_bytes()[15] < 4 {
            continue;
        }
        if &*step.process.id == "1001" {
            step.process.instance = "another start".into();
            step.instance = "another start".into();
            step.number = step.number.map(|number| number - 6);
        }
        if step.process.is_service() {
            step.instance = "a later start".into();
            step.number = step.number.map(|number| number - 4);
            restart.get_or_insert(step.time);
        }
    }
    let drawn = svg(steps);
    let names: Vec<&str> = drawn.lifelines.values().map(|line| &*line.name).collect();
    assert_eq!(
        names,
        [
            "server",
            "Participant 1",
            "Participant 2",
            "Participant 1 (2)"
        ]
    );
    assert_eq!(drawn.line("server").restarts, [restart.unwrap()]);
    assert_eq!(drawn.line("Participant 2").restarts, [0; 0]);
}

#[test]
fn a_new_history_begins_below_the_old_one_though_its_times_begin_at_one_again() {
    let mut steps = talk(2, 4);
    let mut later = talk(2, 4);
    for step in &mut later {
        step.id.trace = (u128::from_be_bytes(step.id.trace.to_bytes()) + (1 << 100)).into();
        step.start += 1000 * SECOND;
        step.end += 1000 * SECOND;
        step.number = step.number.map(|number| number + 1000);
        if !step.epoch.is_empty() {
            step.epoch = "another epoch".into();
        }
    }
    steps.extend(later);
    let drawn = svg(steps);
    let bottom_of_first = drawn.steps.values().filter(|step| step.event < 4);
    let bottom_of_first = bottom_of_first.map(|step| step.y).max();
    let top_of_second = drawn.steps.values().filter(|step| step.event >= 4);
    assert!(bottom_of_first < top_of_second.map(|step| step.y).min());
}

#[test]
fn a_clock_that_goes_back_is_drawn_as_it_says_and_marked() {
    let mut steps = talk(2, 3);
    let delivery = nth(&steps, Act::Deliver, 3);
    steps[delivery].time = 1;
    let drawn = svg(steps);
    let backwards = drawn.arrows.iter();
    let backwards: Vec<_> = backwards
        .filter(|arrow| arrow.marks.contains("backwards"))
        .collect();
    assert_eq!(backwards.len(), 1);
    assert_eq!(drawn.steps[&backwards[0].to].time, 1);
}

/// Two participants speak at once: the second was ordered without having been able to answer the first.
fn at_once() -> Vec<Step> {
    let mut steps = talk(2, 4);
    // The delivery of the third message to its reader 1002, and what 1002 then sends, change places.
    let delivery = (0..steps.len())
        .find(|&index| {
            let step = &steps[index];
            step.act == Act::Deliver && step.sequence == Some(3) && &*step.process.id == "1002"
        })
        .unwrap();
    let send = nth(&steps, Act::Send, 3);
    assert_eq!(&*steps[send].process.id, "1002");
    let (earlier, later) = (steps[delivery].number, steps[send].number);
    (steps[delivery].number, steps[send].number) = (later, earlier);
    steps
}

#[test]
fn a_sending_is_marked_if_its_sender_had_not_read_what_was_ordered_before() {
    let drawn = svg(at_once());
    let marks = marked(&drawn, "concurrent");
    assert_eq!(marks.len(), 1);
    assert_eq!(marks[0].process, "1002");
    assert!(
        marks[0].tooltip.contains("This is message 2."),
        "{}",
        marks[0].tooltip
    );
}

#[test]
fn concurrency_is_not_claimed_where_the_sender_may_have_read_what_was_not_recorded() {
    // The last delivery before the sending is lost: its number is missing.
    let mut steps = talk(2, 4);
    steps.retain(|step| {
        let lost =
            step.act == Act::Deliver && step.sequence == Some(3) && &*step.process.id == "1002";
        !lost
    });
    assert_eq!(marked(&svg(steps.clone()), "concurrent").len(), 0);

    // Without numbers there is nothing that speaks against it.
    for step in &mut steps {
        step.number = None;
    }
    assert_eq!(marked(&svg(steps), "concurrent").len(), 1);
}

#[test]
fn who_comes_back_after_it_was_gone_has_a_line_that_breaks_and_goes_on() {
    let mut steps = talk(2, 8);
    // Message 3 becomes the announcement that participant 1 is gone; it reads nothing of messages 2 and 3.
    steps.retain(|step| {
        let message = step.id.trace.to_bytes()[15];
        let of_gone = &*step.process.id == "1001" && (message == 2 || message == 3);
        let replaced = message == 3 && step.act == Act::Send;
        !(of_gone || replaced)
    });
    for step in &mut steps {
        if step.id.trace.to_bytes()[15] == 3 {
            step.event = EventName::Leave;
            step.participant = "Participant 1".into();
            if step.act == Act::Order {
                (step.parent, step.message_time) = (None, None);
            }
        }
    }
    let drawn = svg(steps);
    let line = drawn.line("Participant 1");
    let ends: Vec<&str> = line.lives.iter().map(|(_, _, end)| end.as_str()).collect();
    assert_eq!(ends, ["gone", "open"]);
    assert_eq!(line.breaks.len(), 1);
    assert!(line.breaks[0] < line.lives[1].0, "{line:?}");
}

/// A run whose parents and processes are left to chance, contradictions included.
fn any_run(random: &mut StdRng) -> Run {
    let mut steps = talk(random.random_range(1..4), random.random_range(1..10));
    for _ in 0..random.random_range(0..10) {
        let index = random.random_range(0..steps.len());
        let other = random.random_range(0..steps.len());
        match random.random_range(0..4) {
            0 => {
                (steps[index].id.trace, steps[index].parent) =
                    (steps[other].id.trace, Some(steps[other].id.span))
            }
            1 => steps[index].parent = Some(steps[index].id.span),
            2 => steps[index].number = Some(random.random_range(0..20)),
            _ => steps[index].process = Process::clone(&steps[other].process),
        }
    }
    // Two spans of one id would be one.
    let mut ids = std::collections::HashSet::new();
    steps.retain(|step| ids.insert(step.id));
    Run::new(Recording {
        steps,
        ..Recording::default()
    })
}

#[test]
fn what_happened_before_is_what_can_be_reached_and_never_itself() {
    let seed = chance::seed();
    println!("CHITCHAT_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..300 {
        let run = any_run(&mut random);
        let order = HappenedBefore::new(&run).unwrap();
        assert_eq!(order.sequence().len(), run.steps.len());
        let mut before: Vec<BTreeSet<Index>> = vec![BTreeSet::new(); run.steps.len()];
        for &step in order.sequence() {
            let (process, place) = order.place(step);
            let of_process = run.processes.values().nth(process).unwrap();
            assert_eq!(of_process[place as usize - 1], step);
            let last = (place > 1).then(|| of_process[place as usize - 2]);
            for came in last.into_iter().chain(order.cause(step)) {
                let known = before[came].clone();
                before[step].extend(known);
                before[step].insert(came);
            }
            assert!(!before[step].contains(&step), "a step before itself");
        }
        for one in 0..run.steps.len() {
            for (other, came) in before.iter().enumerate() {
                assert_eq!(order.before(one, other), came.contains(&one));
            }
            if order.cause(one) != run.causes[one] {
                assert!(order.contradictions().contains(&one));
            }
        }
    }
}

#[test]
fn whatever_was_recorded_is_drawn_every_step_once() {
    let seed = chance::seed();
    println!("CHITCHAT_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..100 {
        let mut run = any_run(&mut random);
        for _ in 0..3 {
            let index = random.random_range(0..run.steps.len());
            let step = &mut run.steps[index];
            step.time = [i64::MIN, 0, i64::MAX][random.random_range(0..3)];
            step.message_time = [None, Some(i64::MIN), Some(i64::MAX)][random.random_range(0..3)];
            step.start = [0, u64::MAX][random.random_range(0..2)];
            step.number = [None, Some(0), Some(u64::MAX)][random.random_range(0..3)];
        }
        for format in [Format::Html, Format::Mermaid, Format::Text, Format::Shiviz] {
            diagram::draw(&run, format, &Options::default()).unwrap();
        }
        let svg = diagram::draw(&run, Format::Svg, &Options::default()).unwrap();
        let drawn = drawn::read(&svg[0]);
        let recorded = drawn.steps.values().filter(|step| !step.span.is_empty());
        assert_eq!(recorded.count(), run.steps.len());
    }
}
