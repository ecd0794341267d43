//! The rules of a message's way: sent-ordered-delivered, same-event-for-all, private-refusals.

use std::collections::HashMap;

use opentelemetry::{SpanId, TraceId};

use super::{
    super::{
        run::Index,
        step::{Act, Step},
    },
    Rule,
    case::{Case, Did, Who},
    verdict::Verdict,
};
use crate::telemetry::EventName;

/// Events after which a message may be stored again, as far as this rule is concerned: `limits.dedup_events`, its default.
/// A setting that is lower makes a finding, which says so.
const REMEMBERED_EVENTS: u64 = 100_000;

pub(super) fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    for (index, step) in case.run.steps.iter().enumerate() {
        match step.act {
            Act::Send => sent(case, index, verdict),
            Act::Order => ordered(case, index, verdict),
            Act::Deliver => delivered(case, index, verdict),
        }
    }
    unordered_agree(case, verdict);
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
            rule.broken.add(1, &[index, stored, order], || {
                format!(
                    "{} and {}: one message became two events (which is right only if limits.dedup_events is below {apart})",
                    Did(one),
                    Did(other)
                )
            });
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
            || order.participant == step.participant && order.message_id == step.message_id);
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
            if shown(other) != shown(step) {
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
