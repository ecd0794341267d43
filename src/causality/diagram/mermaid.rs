//! A Mermaid `sequenceDiagram`, which GitHub and others draw inside their pages.
//!
//! Arrows are level there, so each stands where it arrives, in the order of the logical times of its arrival; both times
//! are in its text.

use std::fmt::Write as _;

use super::{
    layout::Page,
    picture::{Arrow, Event, Moment, Picture},
    words,
};
use crate::causality::step::Act;

/// What one diagram may have.
///
/// Unit: characters. Source: Mermaid's default `maxTextSize`, which GitHub keeps; it draws nothing of a longer one. When
/// reached: the diagram is cut into more pages.
pub(super) const CHARACTERS_MAX: usize = 50_000;

/// What an event's text may take. Unit: columns of a terminal. A longer one would push the lifelines apart.
const LABEL_COLUMNS: usize = 60;

/// The diagram of one page.
pub(super) fn draw(picture: &Picture<'_>, page: &Page) -> String {
    let mut out = String::from("sequenceDiagram\n");
    out.push_str(
        "    %% Each arrow stands where it arrives, by logical time: [sent → arrived]. Dashed: a span is missing.\n",
    );
    for &line in &page.columns {
        let name = escape(&picture.lifelines[line].name);
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "    participant p{line} as {name}");
    }
    let mut lines: Vec<(Moment, usize, usize, String)> = Vec::new();
    for index in page.events.clone() {
        let event = &picture.events[index];
        for &arrow in &event.arrows {
            let from = &picture.points[arrow.from];
            let at = arrow.to.map_or(from.at, |to| picture.points[to].at);
            let lifeline = arrow.to.map_or(0, |to| picture.points[to].lifeline);
            lines.push((at, index, lifeline, message(picture, event, arrow)));
        }
        lines.extend(notes(picture, index, event));
    }
    lines.extend(returns(picture, page));
    lines.sort();
    for (_, _, _, line) in lines {
        let _ = writeln!(out, "    {line}");
    }
    out
}

fn message(picture: &Picture<'_>, event: &Event, arrow: Arrow) -> String {
    let from = &picture.points[arrow.from];
    let start = from.at.time;
    let label = escape(&words::cut(&words::label(event), LABEL_COLUMNS));
    let Some(to) = arrow.to.map(|to| &picture.points[to]) else {
        return format!("p{}-xp0: {label} [{start} → not recorded]", from.lifeline);
    };
    let line = if arrow.lost { "-->>" } else { "->>" };
    let concurrent = match event.unread.first() {
        Some(&unread) if from.act == Act::Send => {
            format!(" (concurrent with {})", picture.events[unread].at.time)
        }
        _ => String::new(),
    };
    let how = match (to.replayed, to.late) {
        (true, _) => " replayed",
        (false, Some(_)) => " late",
        (false, None) => "",
    };
    let said = match from.act {
        Act::Send => format!("{label}{concurrent} "),
        Act::Order | Act::Deliver => String::new(),
    };
    format!(
        "p{}{line}p{}: {said}[{start} → {}]{how}",
        from.lifeline, to.lifeline, to.at.time
    )
}

/// What no arrow tells: what the service ordered and no recorded process had sent.
fn notes(
    picture: &Picture<'_>,
    index: usize,
    event: &Event,
) -> impl Iterator<Item = (Moment, usize, usize, String)> {
    let arrives = |id| event.arrows.iter().any(|arrow| arrow.to == Some(id));
    event
        .points
        .iter()
        .map(|&id| (id, &picture.points[id]))
        .filter(move |&(id, point)| point.act == Act::Order && point.step.is_some() && !arrives(id))
        .map(move |(_, point)| {
            let label = escape(&words::cut(&words::label(event), LABEL_COLUMNS));
            let note = format!("Note over p{}: {label} [{}]", point.lifeline, point.at.time);
            (point.at, index, 0, note)
        })
}

/// Where a process came back: before all else at its first step.
fn returns(picture: &Picture<'_>, page: &Page) -> Vec<(Moment, usize, usize, String)> {
    let mut returns = Vec::new();
    for &line in &page.columns {
        let lifeline = &picture.lifelines[line];
        let starts = lifeline.starts.iter().map(|at| (at, "started again"));
        let resumes = lifeline.resumes.iter().map(|at| (at, "came back"));
        for (&at, words) in starts.chain(resumes) {
            if page.rows.binary_search(&at).is_ok() {
                returns.push((at, 0, line, format!("Note over p{line}: {words}")));
            }
        }
    }
    returns
}

/// Nothing but letters, digits, spaces and harmless signs is left as it is: `;` and a line break end a statement, `#`
/// begins such an escape, `%%` a comment, `:wrap:` a directive, `<` a tag, and the word `end` a block.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_alphanumeric() || !c.is_ascii() || " .,!?'()/=…→".contains(c) {
            escaped.push(c);
        } else {
            let _ = write!(escaped, "#{};", u32::from(c));
        }
    }
    let lower = escaped.to_ascii_lowercase();
    let ends = lower.match_indices("end").map(|(at, _)| at);
    for at in ends.collect::<Vec<_>>().into_iter().rev() {
        let code = u32::from(escaped.as_bytes()[at]);
        escaped.replace_range(at..=at, &format!("#{code};"));
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_mermaid_is_escaped() {
        assert_eq!(escape("Hello, Ærø!"), "Hello, Ærø!");
        assert_eq!(escape("a;b#c%%d"), "a#59;b#35;c#37;#37;d");
        assert_eq!(escape("<b>\n```"), "#60;b#62;#10;#96;#96;#96;");
        assert_eq!(escape("The End"), "The #69;nd");
    }
}
