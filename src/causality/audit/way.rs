//! The rules of a message's way: sent-ordered-delivered, same-event-for-all, private-refusals.

use std::collections::HashMap;

use opentelemetry::{SpanId, TraceId};

use super::{
    super::{
        run::Index,
        step::{Act, Step},
    },
    Rule,
    case::{Case, Did, Room, Who},
    verdict::{Judged, Verdict},
};
use crate::{
    room::text::name_key,
    telemetry::{ATTRIBUTE_BYTES, EventName},
};

/// Events after which a message may be stored again, as far as this rule is concerned: `limits.dedup_events`, its default.
/// A setting that is lower makes a finding, which says so.
const REMEMBERED_EVENTS: u64 = 100_000;

pub(super) fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    for (index, step) in case.run.steps.iter().enumerate() {
        acted(case, index, verdict.rule(Rule::SentOrderedDelivered));
        match step.act {
            Act::Send => sent(case, index, verdict),
            Act::Order => ordered(case, index, verdict),
            Act::Deliver => delivered(case, index, verdict),
        }
    }
    unordered_agree(case, verdict);
    begun_once(case, verdict.rule(Rule::SentOrderedDelivered));
    for room in &case.rooms {
        stored_once(case, room, verdict.rule(Rule::SentOrderedDelivered));
    }
}

/// The service orders, and nobody else; participants send and receive.
fn acted(case: &Case<'_>, index: Index, rule: &mut Judged) {
    let step = case.step(index);
    if step.process.is_service() != (step.act == Act::Order) {
        rule.broken.add(1, &[index], || match step.act {
            Act::Order => format!("{}, which the service alone may do", Did(step)),
            Act::Send | Act::Deliver => format!("{}, which is for participants", Did(step)),
        });
    }
}

/// A trace is of one event: it begins once, with a send, or with the ordering of what was sent without a trace.
fn begun_once(case: &Case<'_>, rule: &mut Judged) {
    let mut of_trace: HashMap<TraceId, Index> = HashMap::new();
    for (index, step) in case.run.steps.iter().enumerate() {
        let begins = match step.act {
            Act::Send => true,
            Act::Order => step.parent.is_none(),
            Act::Deliver => false,
        };
        if !begins {
            continue;
        }
        let first = *of_trace.entry(step.id.trace).or_insert(index);
        if first != index {
            rule.broken.add(1, &[first, index], || {
                let first = case.step(first);
                format!("{}, and {}: one trace begins twice", Did(first), Did(step))
            });
        }
    }
}

/// A message that is sent again, with another span, is stored once all the same. What [`sent`] sees is not told twice.
fn stored_once(case: &Case<'_>, room: &Room<'_>, rule: &mut Judged) {
    let mut stored: HashMap<&str, Index> = HashMap::new();
    for &index in &room.orders {
        let step = case.step(index);
        if step.event != EventName::Message || step.message_id.is_empty() {
            continue;
        }
        let Some(first) = stored.insert(&step.message_id, index) else {
            continue;
        };
        let one = case.step(first);
        let same_send = case.cause(index, Act::Send);
        let apart = step.sequence.unwrap_or(0) - one.sequence.unwrap_or(0);
        let told = same_send.is_some() && same_send == case.cause(first, Act::Send);
        // Two events in one place are the sequence's fault.
        if !told && (1..=REMEMBERED_EVENTS).contains(&apart) {
            rule.broken
                .add(1, &[first, index], || twice(one, step, apart));
        }
    }
}

fn twice(one: &Step, other: &Step, apart: u64) -> String {
    format!(
        "{} and {}: one message became two events (which is right only if limits.dedup_events is below {apart})",
        Did(one),
        Did(other)
    )
}

fn sent(case: &Case<'_>, index: Index, verdict: &mut Verdict) {
    let step = case.step(index);
    let orders = || {
        let effects = case.run.effects[index].iter().copied();
        effects.filter(|&effect| case.step(effect).act == Act::Order)
    };
    if orders().next().is_none() {
        verdict.apart.unordered_sends += 1;
    }
    let rule = verdict.rule(Rule::SentOrderedDelivered);
    rule.checked += 1;
    if step.parent.is_some() {
        rule.broken.add(1, &[index], || {
            format!(
                "{}, as if another step had caused it: a send begins a trace",
                Did(step)
            )
        });
    }
    // A JOIN that was not answered is sent again as it is, and may come to be two of them. A message may not.
    if step.event != EventName::Message {
        return;
    }
    let mut first: Option<Index> = None;
    for order in orders().filter(|&order| case.step(order).sequence.is_some()) {
        let Some(stored) = first else {
            first = Some(order);
            continue;
        };
        let (one, other) = (case.step(stored), case.step(order));
        let apart = one
            .sequence
            .unwrap_or(0)
            .abs_diff(other.sequence.unwrap_or(0));
        if apart <= REMEMBERED_EVENTS {
            rule.broken
                .add(1, &[index, stored, order], || twice(one, other, apart));
        }
    }
}

fn ordered(case: &Case<'_>, index: Index, verdict: &mut Verdict) {
    let step = case.step(index);
    if step.parent.is_none() {
        match (step.event, step.message_time) {
            (EventName::Leave, None) => verdict.apart.noticed_departures += 1,
            _ => verdict.apart.untraced_sends += 1,
        }
    }
    if step.event == EventName::Refusal {
        refused(case, index, verdict);
    }
    let rule = verdict.rule(Rule::SentOrderedDelivered);
    rule.checked += 1;
    let Some(cause) = case.run.causes[index] else {
        if step.parent.is_some() {
            rule.undecided.add(1, &[index], || {
                format!("{}; its send is not recorded", Did(step))
            });
        }
        return;
    };
    let send = case.step(cause);
    let same = send.act == Act::Send
        && send.room == step.room
        && (step.event == EventName::Refusal || send.event == step.event)
        && (step.event != EventName::Message || send.message_id == step.message_id);
    if !same {
        rule.broken.add(1, &[cause, index], || {
            format!("{}, caused by something else: {}", Did(step), Did(send))
        });
    }
    let rule = verdict.rule(Rule::SameEventForAll);
    rule.checked += 1;
    let same_sender =
        name_key(tidy(&send.participant).as_str()) == name_key(tidy(&step.participant).as_str());
    let same_text = step.event != EventName::Message
        || is_unknown(&send.text)
        || is_unknown(&step.text)
        || tidy(&send.text) == step.text;
    if !(same_sender && same_text) {
        rule.broken.add(1, &[cause, index], || {
            let what = if same_sender {
                "another text"
            } else {
                "another sender"
            };
            format!("{}, with {what} than it was sent: {}", Did(step), Did(send))
        });
    }
}

/// Whether a text is not in its span, or may have been cut off there.
fn is_unknown(text: &str) -> bool {
    text.is_empty() || text.len() + char::MAX_LEN_UTF8 > ATTRIBUTE_BYTES
}

/// Told to its sender alone, once.
fn refused(case: &Case<'_>, index: Index, verdict: &mut Verdict) {
    let step = case.step(index);
    let rule = verdict.rule(Rule::PrivateRefusals);
    rule.checked += 1;
    let sender = case.sender(index);
    let mut told: Option<Index> = None;
    let effects = case.run.effects[index].iter().copied();
    for receipt in effects.filter(|&effect| case.step(effect).act == Act::Deliver) {
        let receiver = case.step(receipt);
        let own = match sender {
            Some(sender) => receiver.process == *sender,
            // The receiver names itself in the receipt of a refusal. What the service shows of a name is tidied.
            None => tidy(&receiver.participant) == tidy(&step.participant),
        };
        if !own {
            rule.broken.add(1, &[index, receipt], || {
                format!(
                    "{} was told to {}, who did not send it",
                    Did(step),
                    Who(receiver)
                )
            });
        } else if let Some(first) = told {
            rule.broken.add(1, &[index, first, receipt], || {
                format!("{} was told to {} twice", Did(step), Who(receiver))
            });
        } else {
            told = Some(receipt);
        }
    }
}

fn tidy(name: &str) -> String {
    use unicode_normalization::UnicodeNormalization as _;
    name.trim().nfc().collect()
}

fn delivered(case: &Case<'_>, index: Index, verdict: &mut Verdict) {
    let step = case.step(index);
    let rule = verdict.rule(Rule::SentOrderedDelivered);
    rule.checked += 1;
    let Some(cause) = case.run.causes[index] else {
        match step.parent {
            Some(_) => rule.undecided.add(1, &[index], || {
                format!("{}; its ordering is not recorded", Did(step))
            }),
            None => rule.broken.add(1, &[index], || {
                format!("{}, though no ordering caused it", Did(step))
            }),
        }
        return;
    };
    let order = case.step(cause);
    if order.act != Act::Order || order.room != step.room || order.epoch != step.epoch {
        rule.broken.add(1, &[cause, index], || {
            format!("{}, caused by something else: {}", Did(step), Did(order))
        });
        return;
    }
    let rule = verdict.rule(Rule::SameEventForAll);
    rule.checked += 1;
    let refusal = step.event == EventName::Refusal;
    let same = order.sequence == step.sequence
        && order.event == step.event
        && (refusal
            || order.participant == step.participant
                && order.message_id == step.message_id
                && is_same_text(order, step));
    if !same {
        rule.broken.add(1, &[cause, index], || {
            format!(
                "{}, which is another event than it was: {}",
                Did(step),
                Did(order)
            )
        });
    }
}

/// What was said, where both spans tell it. Of joins and leaves only the receipt has words.
fn is_same_text(one: &Step, other: &Step) -> bool {
    let said = one.event == EventName::Message && !one.text.is_empty() && !other.text.is_empty();
    !said || one.text == other.text
}

/// Deliveries whose ordering was not recorded agree with each other all the same.
fn unordered_agree(case: &Case<'_>, verdict: &mut Verdict) {
    let rule = verdict.rule(Rule::SameEventForAll);
    let mut of_order: HashMap<(TraceId, SpanId), Index> = HashMap::new();
    let mut of_place: HashMap<(&str, &str, u64), Index> = HashMap::new();
    for (index, step) in case.run.steps.iter().enumerate() {
        let Some(parent) = step.parent else { continue };
        if step.act != Act::Deliver || case.run.causes[index].is_some() {
            continue;
        }
        let first = *of_order.entry((step.id.trace, parent)).or_insert(index);
        if first != index {
            rule.checked += 1;
            let other = case.step(first);
            if shown(other) != shown(step) || !is_same_text(other, step) {
                rule.broken.add(1, &[first, index], || {
                    format!("{}, but {}: one event, shown as two", Did(other), Did(step))
                });
                continue;
            }
        }
        let Some(sequence) = step.sequence else {
            continue;
        };
        let first = *of_place
            .entry((&step.epoch, &step.room, sequence))
            .or_insert(index);
        let other = case.step(first);
        if other.parent != step.parent {
            rule.broken.add(1, &[first, index], || {
                format!("{}, but {}: two events in one place", Did(other), Did(step))
            });
        }
    }
}

/// What is to be the same for everybody.
fn shown(step: &Step) -> (Option<u64>, Option<i64>, EventName, &str, &str) {
    (
        step.sequence,
        step.message_time,
        step.event,
        &step.participant,
        &step.message_id,
    )
}
