//! What is written beside lines and points.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::picture::{Event, Picture, PointId};
use crate::{causality::step::Act, telemetry::EventName};

/// An event in one line: `Alex: Hello World!`. Clean.
pub(super) fn label(event: &Event) -> String {
    let name = &event.name;
    match event.kind {
        EventName::Join => format!("{name} joins"),
        EventName::Leave if event.gone => format!("{name} is gone"),
        EventName::Leave => format!("{name} leaves"),
        EventName::Message if event.text.is_empty() => format!("{name}: (text not recorded)"),
        EventName::Message => format!("{name}: {}", event.text),
        EventName::Refusal => format!("{name} is refused: {}", refusal(event)),
    }
}

fn refusal(event: &Event) -> &str {
    match event.refusal.as_str() {
        "" => "reason not recorded",
        refusal => refusal,
    }
}

/// What happened at a point, in one line: `Alex sends: Hello World!`. Clean.
pub(super) fn deed(picture: &Picture<'_>, event: &Event, id: PointId) -> String {
    let point = &picture.points[id];
    let who = &picture.lifelines[point.lifeline].name;
    match (point.act, event.kind) {
        (Act::Send, EventName::Join) => format!("{who} asks to join"),
        (Act::Send, EventName::Leave) => format!("{who} says that it leaves"),
        (Act::Send, _) if event.text.is_empty() => format!("{who} sends a message"),
        (Act::Send, _) => format!("{who} sends: {}", event.text),
        (Act::Order, EventName::Refusal) => {
            format!("{who} refuses what {} sent: {}", event.name, refusal(event))
        }
        (Act::Order, _) if event.gone => format!(
            "{who} announces that {} is gone: cut off, crashed, or closed without LEAVE",
            event.name
        ),
        (Act::Order, _) => format!("{who} orders: {}", label(event)),
        (Act::Deliver, _) => format!("{who} reads: {}", label(event)),
    }
}

/// All that is known about a point, in lines. Clean.
pub(super) fn about(picture: &Picture<'_>, event: &Event, id: PointId) -> String {
    let point = &picture.points[id];
    let mut about = deed(picture, event, id);
    // Writing to a String cannot fail, here and below.
    let _ = write!(about, "\nlogical time {}", point.at.time);
    let Some(step) = picture.step(id) else {
        about.push_str(", as the message carried it: the span of this step is missing");
        return about;
    };
    if let Some(carried) = step.message_time {
        let _ = write!(about, "; the message carried {carried}");
    }
    let wall = SystemTime::UNIX_EPOCH + Duration::from_nanos(step.start);
    let wall = humantime::format_rfc3339_micros(wall);
    let _ = write!(about, "\nwall clock {wall}");
    if point.replayed {
        about.push_str("\nmissed while its connection was lost, and replayed when it came back");
    }
    if let Some(late) = point.late {
        let late = humantime::format_duration(Duration::from_millis(
            late.as_millis().try_into().unwrap_or(u64::MAX),
        ));
        let _ = write!(
            about,
            "\n{late} later than its fastest: it read slowly, or its client does not tell of replays"
        );
    }
    if point.act == Act::Order
        && let Some(recipients) = event.recipients
    {
        let recorded = event.points.iter();
        let recorded = recorded.filter(|&&point| picture.points[point].act == Act::Deliver);
        let _ = write!(
            about,
            "\nhanded to {recipients} streams, {} deliveries recorded",
            recorded.count()
        );
    }
    if point.act == Act::Send && !event.unread.is_empty() {
        about.push_str(
            "\nconcurrent with what was ordered before it, which its sender had not read:",
        );
        for &unread in &event.unread {
            let unread = &picture.events[unread];
            let _ = write!(about, "\n  L={} {}", unread.at.time, label(unread));
        }
    }
    if point.act == Act::Order {
        let _ = write!(about, "\nroom {}", event.room);
        if let Some(sequence) = event.sequence {
            let _ = write!(about, ", sequence {sequence}");
        }
    }
    let _ = write!(about, "\ntrace {}, span {}", step.id.trace, step.id.span);
    about
}

/// `text`, if it is not wider than `columns` of a terminal; else its beginning and `…`.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut width = 0;
    for c in text.chars() {
        width += c.width().unwrap_or(0);
        if width >= columns {
            break;
        }
        cut.push(c);
    }
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_by_its_width_on_a_terminal() {
        assert_eq!(cut("Hello", 5), "Hello");
        assert_eq!(cut("Hello!", 5), "Hell…");
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("日本語", 1), "…");
    }
}
