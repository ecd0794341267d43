//! A diagram for a terminal, or for a mail: a line for each arrival, logical times on the left, events in words on the right.

use std::{cmp::Ordering, iter};

use unicode_width::UnicodeWidthStr as _;

use super::{
    layout::Page,
    lifeline::{End, Life, Lifelines},
    picture::{Moment, Picture, Point, PointId},
    words,
};
use crate::causality::step::Act;

/// Between two lifelines. Unit: columns of a terminal.
const COLUMN: usize = 13;
/// What an event's text may take. Unit: columns of a terminal.
const LABEL_COLUMNS: usize = 72;

/// How the picture is drawn.
#[derive(Debug, Clone, Copy)]
struct Signs {
    life: char,
    gone: char,
    left: char,
    send: char,
    order: char,
    deliver: char,
    lost: char,
    line: char,
    dashed: char,
    crossing: char,
    start_right: char,
    start_left: char,
    to_the_right: char,
    to_the_left: char,
    concurrent: &'static str,
    /// Ends what was cut.
    more: &'static str,
}

const BOXES: Signs = Signs {
    life: '│',
    gone: '╳',
    left: '┴',
    send: '○',
    order: '■',
    deliver: '●',
    lost: '◌',
    line: '─',
    dashed: '╌',
    crossing: '┼',
    start_right: '├',
    start_left: '┤',
    to_the_right: '►',
    to_the_left: '◄',
    concurrent: "∥",
    more: "…",
};

const ASCII: Signs = Signs {
    life: '|',
    gone: 'X',
    left: '^',
    send: 'o',
    order: '#',
    deliver: '*',
    lost: '?',
    line: '-',
    dashed: '.',
    crossing: '+',
    start_right: '+',
    start_left: '+',
    to_the_right: '>',
    to_the_left: '<',
    concurrent: "||",
    more: "~",
};

impl Signs {
    fn cut(&self, text: &str, columns: usize) -> String {
        let cut = words::cut(text, columns);
        match cut.strip_suffix('…').filter(|_| cut != text) {
            Some(begin) => format!("{begin}{}", self.more),
            None => cut,
        }
    }
}

/// Something that gets a line of its own.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Happening {
    at: Moment,
    act: Act,
    event: usize,
    /// The points at its one end; more than one only where one message arrives at the same time at several.
    points: Vec<PointId>,
}

/// The diagram of one page. `ascii`: nothing of the drawing needs another character; names and texts stay as they are.
pub(super) fn draw(picture: &Picture<'_>, page: &Page, ascii: bool) -> String {
    let signs = if ascii { ASCII } else { BOXES };
    let mut lines = vec![header(picture, page, signs)];
    let happenings = happenings(picture, page);
    let mut alive: Vec<Option<Life>> = vec![None; page.columns.len()];
    let mut last: Option<Moment> = None;
    for happening in &happenings {
        if last.is_some_and(|last| last.epoch != happening.at.epoch) {
            lines.push("(a new history)".to_owned());
        }
        if last != Some(happening.at) {
            lines.extend(returns(picture, page, happening.at));
        }
        last = Some(happening.at);
        let canvas = canvas(picture, page, signs, happening, &mut alive);
        let label = label(picture, signs, happening);
        let drawn = format!("{:>5}    {canvas} {label}", happening.at.time);
        lines.push(drawn.trim_end().to_owned());
    }
    lines.push(String::new());
    lines.push(legend(signs));
    lines.join("\n") + "\n"
}

/// Who came back at that time.
fn returns(picture: &Picture<'_>, page: &Page, at: Moment) -> Vec<String> {
    let service = &picture.lifelines[Lifelines::SERVICE];
    let again = service.starts.contains(&at);
    let again = again.then(|| "(the service was started again)".to_owned());
    let lines = page.columns.iter().map(|&line| &picture.lifelines[line]);
    let resumed = lines.filter(|lifeline| lifeline.resumes.contains(&at));
    let resumed = resumed.map(|lifeline| format!("({} came back)", lifeline.name));
    again.into_iter().chain(resumed).collect()
}

fn header(picture: &Picture<'_>, page: &Page, signs: Signs) -> String {
    let mut header = format!("{:>5}    ", "L");
    for &line in &page.columns {
        let name = signs.cut(&picture.lifelines[line].name, COLUMN - 2);
        let padding = COLUMN.saturating_sub(name.width());
        header.push_str(&name);
        header.extend(iter::repeat_n(' ', padding));
    }
    header.trim_end().to_owned()
}

fn legend(signs: Signs) -> String {
    let Signs {
        send,
        order,
        deliver,
        lost,
        gone,
        left,
        dashed,
        concurrent,
        ..
    } = signs;
    format!(
        "{send} sent  {order} ordered  {deliver} read  {left} left  {gone} gone without a word  \
         {lost} {dashed}{dashed} not recorded  {concurrent} concurrent with that event, which its sender had not read\n"
    )
}

/// All that happens on a page, by logical time; messages that arrive at one time from one point together.
fn happenings(picture: &Picture<'_>, page: &Page) -> Vec<Happening> {
    let mut happenings = Vec::new();
    for index in page.events.clone() {
        let mut of_event: Vec<Happening> = Vec::new();
        for &id in &picture.events[index].points {
            let point = &picture.points[id];
            // An event's points are sorted by act and time.
            match of_event.last_mut() {
                Some(last)
                    if point.act == Act::Deliver
                        && (last.act, last.at) == (point.act, point.at) =>
                {
                    last.points.push(id);
                }
                _ => of_event.push(Happening {
                    at: point.at,
                    act: point.act,
                    event: index,
                    points: vec![id],
                }),
            }
        }
        happenings.extend(of_event);
    }
    happenings.sort();
    happenings
}

/// The lifelines, and on them what happens, one character a column of the terminal.
fn canvas(
    picture: &Picture<'_>,
    page: &Page,
    signs: Signs,
    happening: &Happening,
    alive: &mut [Option<Life>],
) -> String {
    let mut cells = vec![' '; (page.columns.len() - 1) * COLUMN + 1];
    for (column, &line) in page.columns.iter().enumerate() {
        let lives = &picture.lifelines[line].lives;
        let now = lives
            .iter()
            .find(|life| (life.from..=life.to).contains(&happening.at));
        let sign = match (now, alive[column]) {
            (Some(_), _) => signs.life,
            (None, Some(Life { end: End::Gone, .. })) => signs.gone,
            (None, Some(Life { end: End::Left, .. })) => signs.left,
            (None, _) => ' ',
        };
        cells[column * COLUMN] = sign;
        alive[column] = now.copied().or(alive[column]);
    }
    let event = &picture.events[happening.event];
    for arrow in &event.arrows {
        let Some(to) = arrow.to.filter(|to| happening.points.contains(to)) else {
            continue;
        };
        let place = |id: PointId| page.column(picture.points[id].lifeline) * COLUMN;
        let (from, to) = (place(arrow.from), place(to));
        let line = if arrow.lost { signs.dashed } else { signs.line };
        for cell in &mut cells[from.min(to)..=from.max(to)] {
            *cell = match *cell {
                ' ' => line,
                other if other == signs.life => signs.crossing,
                other => other,
            };
        }
        match from.cmp(&to) {
            Ordering::Less => {
                (cells[from], cells[to - 1]) = (signs.start_right, signs.to_the_right)
            }
            Ordering::Greater => {
                (cells[from], cells[to + 1]) = (signs.start_left, signs.to_the_left)
            }
            Ordering::Equal => {}
        }
    }
    for &id in &happening.points {
        let point = &picture.points[id];
        cells[page.column(point.lifeline) * COLUMN] = match point.act {
            _ if point.step.is_none() => signs.lost,
            Act::Send => signs.send,
            Act::Order => signs.order,
            Act::Deliver => signs.deliver,
        };
    }
    // An end is shown once; it waits for a line on which nothing stands in its place.
    for (column, life) in alive.iter_mut().enumerate() {
        if [signs.gone, signs.left, ' '].contains(&cells[column * COLUMN]) {
            *life = None;
        }
    }
    cells.into_iter().collect()
}

fn label(picture: &Picture<'_>, signs: Signs, happening: &Happening) -> String {
    let event = &picture.events[happening.event];
    let label = || signs.cut(&words::label(event), LABEL_COLUMNS);
    match happening.act {
        Act::Order => format!("  {}", label()),
        Act::Send if event.arrows.iter().any(|arrow| arrow.to.is_none()) => {
            format!("  {} (its arrival is not recorded)", label())
        }
        Act::Send => {
            let unread = event.unread.iter();
            let times: Vec<String> = unread
                .map(|&unread| picture.events[unread].at.time.to_string())
                .collect();
            match times[..] {
                [] => String::new(),
                _ => format!("  {} {}", signs.concurrent, times.join(", ")),
            }
        }
        Act::Deliver => {
            let points = || happening.points.iter().map(|&point| &picture.points[point]);
            let named = |points: Vec<&Point>, how: &str| match points[..] {
                [] => String::new(),
                _ => {
                    let names = points
                        .iter()
                        .map(|point| &*picture.lifelines[point.lifeline].name);
                    format!("  ({how}: {})", names.collect::<Vec<_>>().join(", "))
                }
            };
            let replayed = points().filter(|point| point.replayed).collect();
            let late = points().filter(|point| point.late.is_some()).collect();
            named(replayed, "replayed") + &named(late, "late")
        }
    }
}
