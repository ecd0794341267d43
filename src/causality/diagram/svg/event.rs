//! One event on a page: its arrows, its points, and what is written beside them.

use std::fmt::Display;

use super::{COLUMN, Drawing, RADIUS, ROW, SERVICE_X};
use crate::causality::{
    diagram::{
        lifeline::Lifelines,
        picture::{Arrow, Event, PointId},
        words,
    },
    step::Act,
};

/// What an event's text may take left of the service's line.
///
/// Unit: columns of a terminal, of about 7 pixels. A longer text is cut; all of it is in the tooltip.
const LABEL_COLUMNS: usize = 50;

impl Drawing<'_, '_> {
    /// Draws the event that stands at `index`, with its arrows below its points.
    pub(super) fn event(&mut self, index: usize) {
        let event = &self.picture.events[index];
        let kind = event.kind.as_str();
        let gone = if event.gone { " gone" } else { "" };
        let classes = format!("event {kind}{gone}");
        let (id, trace) = (format!("e{index}"), event.trace);
        let sequence = event.sequence.map(|sequence| sequence.to_string());
        let mut attributes: Vec<(&'static str, &dyn Display)> = vec![
            ("class", &classes),
            ("id", &id),
            ("data-trace", &trace),
            ("data-kind", &kind),
            ("data-time", &event.at.time),
            ("data-room", &event.room),
            ("data-name", &event.name),
        ];
        attributes.extend(
            sequence
                .as_ref()
                .map(|sequence| ("data-sequence", sequence as &dyn Display)),
        );
        self.markup.start("g", &attributes);
        let label = words::label(event);
        self.markup.leaf("title", &[], &label);
        let link = self.sheet.jaeger.map(|base| base.trace(trace));
        if let Some(link) = &link {
            self.markup
                .start("a", &[("href", link), ("target", &"_blank")]);
        }
        for &arrow in &event.arrows {
            self.arrow(arrow);
        }
        for &point in &event.points {
            self.point(event, point);
        }
        self.label(event, &label);
        if link.is_some() {
            self.markup.end();
        }
        self.markup.end();
    }

    /// The event in words, beside where the service has it.
    fn label(&mut self, event: &Event, label: &str) {
        let x = SERVICE_X - 34;
        let y = self.y(self.page.row(event.at)) + 4;
        self.markup
            .start("text", &[("class", &"label"), ("x", &x), ("y", &y)]);
        self.markup.leaf("title", &[], label);
        self.markup
            .leaf("tspan", &[], words::cut(label, LABEL_COLUMNS));
        self.markup.end();
    }

    fn arrow(&mut self, arrow: Arrow) {
        let (from, start) = (&self.picture.points[arrow.from], self.place(arrow.from));
        let to = arrow.to.map(|to| &self.picture.points[to]);
        let late = to.is_some_and(|to| to.late.is_some());
        let replayed = to.is_some_and(|to| to.replayed);
        let mut classes = match from.act {
            Act::Send => "arrow send".to_owned(),
            Act::Order | Act::Deliver => "arrow deliver".to_owned(),
        };
        for (applies, class) in [
            (arrow.lost, " lost"),
            (replayed, " replayed"),
            (late, " late"),
            (arrow.backwards, " backwards"),
        ] {
            if applies {
                classes.push_str(class);
            }
        }
        let end = match arrow.to {
            Some(to) => self.place(to),
            // Nobody recorded that it arrived: a short way towards the service.
            None => {
                let service = self.x(Lifelines::SERVICE);
                (
                    start.0.saturating_sub(COLUMN / 2).max(service),
                    start.1 + ROW,
                )
            }
        };
        let [x1, y1, x2, y2] = shortened(start, end);
        let (from, to) = (
            format!("p{}", arrow.from),
            arrow.to.map(|to| format!("p{to}")).unwrap_or_default(),
        );
        self.markup.empty(
            "line",
            &[
                ("class", &classes),
                ("data-from", &from),
                ("data-to", &to),
                ("x1", &x1),
                ("y1", &y1),
                ("x2", &x2),
                ("y2", &y2),
                ("marker-end", &"url(#head)"),
            ],
        );
    }

    fn point(&mut self, event: &Event, id: PointId) {
        let point = &self.picture.points[id];
        let lifeline = &self.picture.lifelines[point.lifeline];
        let (x, y) = self.place(id);
        let act = act(point.act);
        let concurrent = point.act == Act::Send && !event.unread.is_empty();
        let mut classes = format!("step {act}");
        for (applies, class) in [
            (point.step.is_none(), " lost"),
            (point.replayed, " replayed"),
            (point.late.is_some(), " late"),
            (concurrent, " concurrent"),
        ] {
            if applies {
                classes.push_str(class);
            }
        }
        let name = format!("p{id}");
        let step = self.picture.step(id);
        let span = step
            .map(|step| step.id.span.to_string())
            .unwrap_or_default();
        self.markup.start(
            "g",
            &[
                ("class", &classes),
                ("id", &name),
                ("data-act", &act),
                ("data-lifeline", &point.lifeline),
                ("data-process", &lifeline.id),
                ("data-time", &point.at.time),
                ("data-span", &span),
            ],
        );
        self.markup
            .leaf("title", &[], words::about(self.picture, event, id));
        match point.act {
            Act::Order => {
                let side = 2 * RADIUS;
                self.markup.empty(
                    "rect",
                    &[
                        ("class", &"point"),
                        ("x", &(x - RADIUS)),
                        ("y", &(y - RADIUS)),
                        ("width", &side),
                        ("height", &side),
                    ],
                );
            }
            Act::Send | Act::Deliver => self.circle("point", (x, y), RADIUS),
        }
        if concurrent {
            self.circle("ring", (x, y), RADIUS + 4);
            let (x, y) = (x - 14, y + 5);
            self.markup
                .leaf("text", &[("class", &"mark"), ("x", &x), ("y", &y)], "∥");
        }
        let (x, y, anchor) = match point.act {
            Act::Order => (x - 10, y + 4, "end"),
            Act::Send | Act::Deliver => (x + 10, y + 4, "start"),
        };
        self.markup.leaf(
            "text",
            &[
                ("class", &"time"),
                ("text-anchor", &anchor),
                ("x", &x),
                ("y", &y),
            ],
            point.at.time,
        );
        self.markup.end();
    }
}

/// As attributes and classes name it.
pub(super) fn act(act: Act) -> &'static str {
    match act {
        Act::Send => "send",
        Act::Order => "order",
        Act::Deliver => "deliver",
    }
}

/// The ends of an arrow, so that it touches what it joins.
fn shortened((x1, y1): (usize, usize), (x2, y2): (usize, usize)) -> [String; 4] {
    let number = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let (x1, y1, x2, y2) = (number(x1), number(y1), number(x2), number(y2));
    let length = (x2 - x1).hypot(y2 - y1).max(1.0);
    let gap = number(RADIUS) + 2.0;
    let (dx, dy) = ((x2 - x1) / length * gap, (y2 - y1) / length * gap);
    [x1 + dx, y1 + dy, x2 - dx, y2 - dy].map(|n| format!("{n:.1}"))
}
