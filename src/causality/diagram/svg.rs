//! A page as SVG: stands alone, in light and in dark, and needs no script.
//!
//! What a test or a program may rely on, all of it in the elements' attributes:
//!
//! | element | attributes |
//! |---|---|
//! | `g.lifeline` | `data-lifeline` (counted from 0, the service), `data-process`, `data-instance`, `data-name` |
//! | `line.life` in it | `data-from`, `data-to` (logical times), `data-end` (`open`, `left`, `gone`) |
//! | `path.break`, `path.restart`, `path.resume` in it | where the process was gone; where the service was started again; where a participant came back to its session (`data-time`) |
//! | `g.event` | `data-trace`, `data-kind`, `data-time`, `data-sequence`, `data-room`, `data-name`; classes: the kind, `gone` |
//! | `g.step` in it | `id`, `data-act`, `data-lifeline`, `data-process`, `data-time`, `data-span`; classes: the act, `lost`, `replayed`, `late`, `concurrent` |
//! | `line.arrow` in it | `data-from`, `data-to` (ids of steps); classes: `send` or `deliver`, `lost`, `replayed`, `late`, `backwards` |

mod event;

use std::fmt::Display;

use super::{
    layout::Page,
    lifeline::{End, Lifeline, Lifelines},
    markup::Markup,
    picture::{Moment, Picture, PointId},
    words,
};
use crate::{client::render::clean, telemetry::JaegerUi};

/// How a drawing looks, wherever it is shown.
pub(super) const STYLE: &str = include_str!("drawing.css");

/// Lengths in the drawing's own unit, a pixel where it is shown as it is.
const ROW: usize = 26;
const COLUMN: usize = 124;
/// Where the service's line stands: left of it, one beside the other, logical times and texts.
const SERVICE_X: usize = 440;
const AXIS_X: usize = 14;
const HEAD_Y: usize = 58;
const HEAD: usize = 38;
const FIRST_ROW_Y: usize = HEAD_Y + HEAD + 24;
const RADIUS: usize = 5;
/// As wide as the legend needs.
const WIDTH_MIN: usize = 940;
const LEGEND_LINE: usize = 19;

/// What a name may take above its line. Unit: columns of a terminal.
const NAME_COLUMNS: usize = 14;

/// The marks, explained below each drawing.
const LEGEND: [&str; 6] = [
    "Time runs downwards by Lamport's logical clocks; the number at each end of an arrow is that process's clock after the step. Rows without a step are left out.",
    "○ sent · ■ ordered by the service · ● read · green: joins and leaves · red: refused, or announced as gone; ✕ breaks the line of who was gone without a word",
    "∥ sent before its sender had read what is ordered just above it: the two are concurrent (named in the tooltip). Who only joins has read nothing and is not marked.",
    "dashed: a span is missing at one end (○ dashed: where it must have been) · thick red: arrives no later than it left, which Lamport's rule forbids",
    "violet: replayed after a resume, at the gap in the line · yellow: read half a second late or more: slowly, or replayed by a client that does not tell",
    "orange bars: the service was started again",
];

/// Which page of a drawing this is, and where its elements lead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sheet<'a> {
    /// From 1.
    pub(super) number: usize,
    /// How many there are.
    pub(super) of: usize,
    /// Jaeger's address, to which elements link.
    pub(super) jaeger: Option<&'a JaegerUi>,
    /// It becomes part of a page that has the style already and moves the lifelines' heads.
    pub(super) embedded: bool,
}

/// Draws `page` of `picture`.
pub(super) fn draw(picture: &Picture<'_>, page: &Page, sheet: Sheet<'_>) -> String {
    let drawing = Drawing {
        picture,
        page,
        sheet,
        markup: Markup::default(),
    };
    drawing.draw()
}

struct Drawing<'a, 'r> {
    picture: &'a Picture<'r>,
    page: &'a Page,
    sheet: Sheet<'a>,
    markup: Markup,
}

impl Drawing<'_, '_> {
    fn draw(mut self) -> String {
        let (width, height) = self.size();
        let view = format!("0 0 {width} {height}");
        let title = self.title();
        let mut attributes: Vec<(&'static str, &dyn Display)> = vec![
            ("xmlns", &"http://www.w3.org/2000/svg"),
            ("viewBox", &view),
            ("role", &"img"),
            ("aria-label", &title),
        ];
        if self.sheet.embedded {
            attributes.push(("id", &"drawing"));
        } else {
            attributes.extend([("width", &width as &dyn Display), ("height", &height)]);
        }
        self.markup.start("svg", &attributes);
        self.markup.leaf("title", &[], &title);
        if !self.sheet.embedded {
            // Ours, and without a character that XML escapes.
            self.markup.raw(&format!("<style>{STYLE}</style>\n"));
        }
        self.heads_of_arrows();
        let size: [(&'static str, &dyn Display); 2] = [("width", &width), ("height", &height)];
        self.markup.empty(
            "rect",
            &[&[("class", &"paper" as &dyn Display)], &size[..]].concat(),
        );
        self.rows(width);
        for &line in &self.page.columns {
            self.lifeline(line);
        }
        // What was sent first is drawn first: a JOIN of long ago crosses all that was said since, and must hide none of it.
        let mut events: Vec<usize> = self.page.events.clone().collect();
        events.sort_by_key(|&event| {
            let event = &self.picture.events[event];
            let sent = event.points.iter().map(|&id| self.picture.points[id].at);
            sent.min().map_or(event.at, |sent| sent.min(event.at))
        });
        for event in events {
            self.event(event);
        }
        self.heading(&title);
        self.legend();
        self.markup.finish()
    }

    fn size(&self) -> (usize, usize) {
        let columns = self.page.columns.len().saturating_sub(1);
        let width = SERVICE_X + columns * COLUMN + COLUMN;
        let height = self.bottom() + 24 + LEGEND.len() * LEGEND_LINE + 10;
        (width.max(WIDTH_MIN), height)
    }

    fn bottom(&self) -> usize {
        self.y(self.page.rows.len())
    }

    fn x(&self, lifeline: usize) -> usize {
        SERVICE_X + self.page.column(lifeline) * COLUMN
    }

    fn y(&self, row: usize) -> usize {
        FIRST_ROW_Y + row * ROW
    }

    /// Where a point stands.
    fn place(&self, id: PointId) -> (usize, usize) {
        let point = &self.picture.points[id];
        let beside = self.page.beside(id) * (RADIUS + 2);
        (
            self.x(point.lifeline) + beside,
            self.y(self.page.row(point.at)),
        )
    }

    fn title(&self) -> String {
        let events = &self.picture.events[self.page.events.clone()];
        let times = match (self.page.rows.first(), self.page.rows.last()) {
            (Some(first), Some(last)) => format!(", logical time {} to {}", first.time, last.time),
            _ => String::new(),
        };
        let mut rooms: Vec<&str> = events.iter().map(|event| event.room.as_str()).collect();
        rooms.sort_unstable();
        rooms.dedup();
        let room = match rooms[..] {
            [] => String::new(),
            [room] => format!(" in {room}"),
            _ => format!(" in {} rooms", rooms.len()),
        };
        let page = match self.sheet.of {
            1 => String::new(),
            of => format!(" (page {} of {of})", self.sheet.number),
        };
        format!("{} events{room}{times}{page}", events.len())
    }

    fn heads_of_arrows(&mut self) {
        self.markup.start("defs", &[]);
        // Grey for all, for `context-stroke`, the colour of the arrow, is not understood everywhere.
        self.markup.start(
            "marker",
            &[
                ("id", &"head"),
                ("viewBox", &"0 0 8 8"),
                ("refX", &7),
                ("refY", &4),
                ("markerWidth", &9),
                ("markerHeight", &9),
                ("markerUnits", &"userSpaceOnUse"),
                ("orient", &"auto"),
            ],
        );
        self.markup.empty(
            "path",
            &[("d", &"M0 0.5 L8 4 L0 7.5 z"), ("fill", &"#768390")],
        );
        self.markup.end();
        self.markup.end();
    }

    fn rows(&mut self, width: usize) {
        self.markup.start("g", &[("class", &"axis")]);
        for (row, moment) in self.page.rows.iter().enumerate() {
            let y = self.y(row);
            let (x2, text_y) = (width - 20, y + 4);
            self.markup.empty(
                "line",
                &[
                    ("class", &"row"),
                    ("x1", &(AXIS_X + 36)),
                    ("x2", &x2),
                    ("y1", &y),
                    ("y2", &y),
                ],
            );
            let of_history = match row.checked_sub(1).map(|before| self.page.rows[before]) {
                Some(before) if before.epoch != moment.epoch => " (a new history)",
                _ => "",
            };
            self.markup.leaf(
                "text",
                &[("x", &AXIS_X), ("y", &text_y)],
                format_args!("{}{of_history}", moment.time),
            );
        }
        self.markup.end();
    }

    fn lifeline(&mut self, line: usize) {
        let lifeline = &self.picture.lifelines[line];
        let (x, bottom) = (self.x(line), self.bottom());
        self.markup.start(
            "g",
            &[
                ("class", &"lifeline"),
                ("data-lifeline", &line),
                ("data-process", &lifeline.id),
                ("data-instance", &lifeline.instance),
                ("data-name", &lifeline.name),
            ],
        );
        let top = HEAD_Y + HEAD;
        self.line("guide", [(x, top), (x, bottom)], &[]);
        for life in &lifeline.lives {
            let Some(extent) = self.page.rows_of(life) else {
                continue;
            };
            let from = if extent.from_above {
                top
            } else {
                self.y(extent.first)
            };
            let to = if extent.goes_on {
                bottom
            } else {
                self.y(extent.last) + ROW / 2
            };
            let end = match life.end {
                _ if extent.goes_on => "open",
                End::Open => "open",
                End::Left => "left",
                End::Gone => "gone",
            };
            let about: [(&'static str, &dyn Display); 3] = [
                ("data-from", &life.from.time),
                ("data-to", &life.to.time),
                ("data-end", &end),
            ];
            self.line("life", [(x, from), (x, to)], &about);
            self.end_of_life(lifeline, end, (x, to), life.to.time);
        }
        let above = |at: &Moment| {
            let row = self.page.rows.binary_search(at).ok()?;
            Some((self.y(row) - ROW / 2, at.time))
        };
        let starts: Vec<_> = lifeline.starts.iter().filter_map(above).collect();
        let resumes: Vec<_> = lifeline.resumes.iter().filter_map(above).collect();
        for (y, time) in starts {
            self.restart((x, y), time);
        }
        for (y, time) in resumes {
            self.resume(lifeline, (x, y), time);
        }
        self.markup.end();
    }

    fn end_of_life(&mut self, lifeline: &Lifeline, end: &str, (x, y): (usize, usize), time: i64) {
        let (left, right) = (x - 7, x + 7);
        match end {
            "left" => self.line("end", [(left, y), (right, y)], &[]),
            "gone" => {
                let cross = format!(
                    "M{left} {} L{right} {} M{right} {} L{left} {}",
                    y - 7,
                    y + 7,
                    y - 7,
                    y + 7
                );
                self.markup.start(
                    "path",
                    &[
                        ("class", &"break"),
                        ("data-process", &lifeline.id),
                        ("data-time", &time),
                        ("d", &cross),
                    ],
                );
                self.markup.leaf(
                    "title",
                    &[],
                    format_args!(
                        "{} was gone without a word after logical time {time}",
                        lifeline.name
                    ),
                );
                self.markup.end();
            }
            _ => {}
        }
    }

    fn restart(&mut self, (x, y): (usize, usize), time: i64) {
        let bars = format!(
            "M{} {} h20 M{} {} h20",
            x - 10,
            y.saturating_sub(2),
            x - 10,
            y + 3
        );
        self.markup.start(
            "path",
            &[("class", &"restart"), ("data-time", &time), ("d", &bars)],
        );
        self.markup
            .leaf("title", &[], "the service was started again");
        self.markup.end();
    }

    /// A gap in the line, between two slanted strokes.
    fn resume(&mut self, lifeline: &Lifeline, (x, y): (usize, usize), time: i64) {
        let gap = format!("M{} {} l18 -6 v6 l-18 6 z", x - 9, y);
        self.markup.start(
            "path",
            &[("class", &"resume"), ("data-time", &time), ("d", &gap)],
        );
        let name = &lifeline.name;
        self.markup.leaf(
            "title",
            &[],
            format_args!("{name} lost its connection and came back: the session was resumed"),
        );
        self.markup.end();
    }

    /// What the page shows, and whose line each is: above all others, for a page that moves them along.
    fn heading(&mut self, title: &str) {
        self.markup.leaf(
            "text",
            &[("class", &"title"), ("x", &AXIS_X), ("y", &26)],
            title,
        );
        self.markup
            .start("g", &[("class", &"heads"), ("id", &"heads")]);
        for &line in &self.page.columns {
            let lifeline = &self.picture.lifelines[line];
            let x = self.x(line);
            let width = COLUMN - 8;
            self.markup.start("g", &[("class", &"head")]);
            self.markup.leaf(
                "title",
                &[],
                format_args!(
                    "{}\nprocess {}\ninstance {}",
                    lifeline.name, lifeline.id, lifeline.instance
                ),
            );
            self.markup.empty(
                "rect",
                &[
                    ("x", &(x - width / 2)),
                    ("y", &HEAD_Y),
                    ("width", &width),
                    ("height", &HEAD),
                    ("rx", &5),
                ],
            );
            let name = words::cut(&lifeline.name, NAME_COLUMNS);
            self.markup
                .leaf("text", &[("x", &x), ("y", &(HEAD_Y + 16))], name);
            let id = match (line, lifeline.process) {
                (Lifelines::SERVICE, _) => "the service".to_owned(),
                (_, None) => "nothing recorded".to_owned(),
                (_, Some(_)) => clean(&words::cut(&lifeline.id, NAME_COLUMNS)).into_owned(),
            };
            self.markup.leaf(
                "text",
                &[("class", &"faint"), ("x", &x), ("y", &(HEAD_Y + 31))],
                id,
            );
            self.markup.end();
        }
        self.markup.end();
    }

    fn legend(&mut self) {
        self.markup.start("g", &[("class", &"legend")]);
        for (line, text) in LEGEND.iter().enumerate() {
            let y = self.bottom() + 24 + line * LEGEND_LINE;
            self.markup.leaf(
                "text",
                &[("class", &"faint"), ("x", &AXIS_X), ("y", &y)],
                text,
            );
        }
        self.markup.end();
    }

    fn line(
        &mut self,
        class: &'static str,
        [(x1, y1), (x2, y2)]: [(usize, usize); 2],
        more: &[(&'static str, &dyn Display)],
    ) {
        let ends: [(&'static str, &dyn Display); 5] = [
            ("class", &class),
            ("x1", &x1),
            ("y1", &y1),
            ("x2", &x2),
            ("y2", &y2),
        ];
        self.markup.empty("line", &[&ends[..], more].concat());
    }

    fn circle(&mut self, class: &'static str, (x, y): (usize, usize), radius: usize) {
        self.markup.empty(
            "circle",
            &[("class", &class), ("cx", &x), ("cy", &y), ("r", &radius)],
        );
    }
}
