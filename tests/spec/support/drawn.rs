//! A diagram read back from its SVG, by an XML parser that knows nothing of how it was written.

use std::collections::{BTreeMap, BTreeSet};

use roxmltree::{Document, Node};

/// What stands on a drawing.
#[derive(Debug, Default)]
pub struct Drawn {
    /// By their number, 0 is the service.
    pub lifelines: BTreeMap<usize, Line>,
    /// By their id.
    pub steps: BTreeMap<String, Point>,
    pub arrows: Vec<Arrow>,
    pub events: Vec<Event>,
}

#[derive(Debug)]
pub struct Line {
    pub process: String,
    pub name: String,
    /// Each life: first and last logical time, how it ended.
    pub lives: Vec<(i64, i64, String)>,
    /// After which logical times it broke.
    pub breaks: Vec<i64>,
    /// At which logical times it was started again.
    pub restarts: Vec<i64>,
    /// At which logical times it came back to its session.
    pub resumes: Vec<i64>,
    /// Where it stands.
    pub x: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub event: usize,
    pub act: String,
    pub lifeline: usize,
    pub process: String,
    pub time: i64,
    /// Empty for a step that was not recorded.
    pub span: String,
    pub marks: BTreeSet<String>,
    pub tooltip: String,
    pub x: i64,
    pub y: i64,
}

#[derive(Debug)]
pub struct Arrow {
    pub from: String,
    /// Empty where it leads nowhere.
    pub to: String,
    pub marks: BTreeSet<String>,
    /// x1, y1, x2, y2
    pub ends: [f64; 4],
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    pub trace: String,
    pub kind: String,
    pub time: i64,
    pub sequence: Option<u64>,
    pub name: String,
    pub gone: bool,
    /// In words, in full.
    pub words: String,
    pub link: Option<String>,
}

/// Reads a drawing. Panics where it is not well-formed.
pub fn read(svg: &str) -> Drawn {
    let document = Document::parse(svg).expect("a drawing is well-formed XML");
    let mut drawn = Drawn::default();
    for node in with_class(&document, "lifeline") {
        let number = |node: Node, name: &str| -> i64 { attribute(node, name).parse().unwrap() };
        let of_class = |class: &'static str| node.children().filter(move |n| has_class(*n, class));
        let line = Line {
            process: attribute(node, "data-process").to_owned(),
            name: attribute(node, "data-name").to_owned(),
            lives: of_class("life")
                .map(|life| {
                    let end = attribute(life, "data-end").to_owned();
                    (number(life, "data-from"), number(life, "data-to"), end)
                })
                .collect(),
            breaks: of_class("break").map(|n| number(n, "data-time")).collect(),
            restarts: of_class("restart")
                .map(|n| number(n, "data-time"))
                .collect(),
            resumes: of_class("resume").map(|n| number(n, "data-time")).collect(),
            x: of_class("guide").map(|n| number(n, "x1")).next().unwrap(),
        };
        let place = number(node, "data-lifeline") as usize;
        assert!(drawn.lifelines.insert(place, line).is_none());
    }
    for (event, node) in with_class(&document, "event").enumerate() {
        drawn.event(event, node);
    }
    drawn
}

impl Drawn {
    fn event(&mut self, event: usize, node: Node) {
        for step in node.descendants().filter(|n| has_class(*n, "step")) {
            let point = step.descendants().find(|n| has_class(*n, "point")).unwrap();
            let number = |name: &str| point.attribute(name).map(|n| n.parse::<i64>().unwrap());
            let half = number("width").unwrap_or(0) / 2;
            let one = Point {
                event,
                act: attribute(step, "data-act").to_owned(),
                lifeline: attribute(step, "data-lifeline").parse().unwrap(),
                process: attribute(step, "data-process").to_owned(),
                time: attribute(step, "data-time").parse().unwrap(),
                span: attribute(step, "data-span").to_owned(),
                marks: marks(step, 2),
                tooltip: title(step),
                x: number("cx").or(number("x")).unwrap() + half,
                y: number("cy").or(number("y")).unwrap() + half,
            };
            let id = attribute(step, "id").to_owned();
            assert!(self.steps.insert(id, one).is_none(), "an id twice");
        }
        for arrow in node.descendants().filter(|n| has_class(*n, "arrow")) {
            self.arrows.push(Arrow {
                from: attribute(arrow, "data-from").to_owned(),
                to: attribute(arrow, "data-to").to_owned(),
                marks: marks(arrow, 2),
                ends: ["x1", "y1", "x2", "y2"].map(|end| attribute(arrow, end).parse().unwrap()),
            });
        }
        let link = node.children().find(|n| n.has_tag_name("a"));
        // The namespace is SVG's, whichever the prefix.
        let link = link.or_else(|| node.children().find(|n| n.tag_name().name() == "a"));
        self.events.push(Event {
            trace: attribute(node, "data-trace").to_owned(),
            kind: attribute(node, "data-kind").to_owned(),
            time: attribute(node, "data-time").parse().unwrap(),
            sequence: node
                .attribute("data-sequence")
                .map(|sequence| sequence.parse().unwrap()),
            name: attribute(node, "data-name").to_owned(),
            gone: has_class(node, "gone"),
            words: title(node),
            link: link.map(|link| attribute(link, "href").to_owned()),
        });
    }

    /// The one step with this span.
    pub fn of_span(&self, span: &str) -> (&str, &Point) {
        let mut found = self.steps.iter().filter(|(_, step)| step.span == span);
        let (id, step) = found
            .next()
            .unwrap_or_else(|| panic!("{span} is not drawn"));
        assert!(found.next().is_none(), "{span} is drawn twice");
        (id, step)
    }

    /// The lifeline with this name.
    pub fn line(&self, name: &str) -> &Line {
        let mut lines = self.lifelines.values();
        lines
            .find(|line| line.name == name)
            .unwrap_or_else(|| panic!("no line of {name}"))
    }

    /// What is drawn, without ids, wall clocks and places: the logic of the run.
    pub fn logic(&self) -> BTreeSet<String> {
        let of = |id: &str| match self.steps.get(id) {
            Some(step) => format!("{} {}@{}", step.act, step.process, step.time),
            None => "nowhere".to_owned(),
        };
        let events = self.events.iter().map(|event| {
            let Event {
                kind,
                time,
                sequence,
                gone,
                words,
                ..
            } = event;
            format!("event {kind} {time} {sequence:?} {gone} {words}")
        });
        let steps = self
            .steps
            .iter()
            .map(|(id, step)| format!("step {} {:?} ({}, {})", of(id), step.marks, step.x, step.y));
        let arrows = self.arrows.iter().map(|arrow| {
            format!(
                "arrow {} to {} {:?}",
                of(&arrow.from),
                of(&arrow.to),
                arrow.marks
            )
        });
        let lines = self.lifelines.iter().map(|(place, line)| {
            let Line {
                process,
                name,
                lives,
                breaks,
                ..
            } = line;
            format!("line {place} {process} {name} {lives:?} {breaks:?}")
        });
        events.chain(steps).chain(arrows).chain(lines).collect()
    }
}

fn with_class<'a>(
    document: &'a Document<'a>,
    class: &'static str,
) -> impl Iterator<Item = Node<'a, 'a>> {
    document
        .descendants()
        .filter(move |node| has_class(*node, class))
}

fn has_class(node: Node, class: &str) -> bool {
    node.attribute("class")
        .is_some_and(|classes| classes.split(' ').any(|one| one == class))
}

/// All classes but the first ones, which say what it is.
fn marks(node: Node, first: usize) -> BTreeSet<String> {
    let classes = attribute(node, "class").split(' ');
    classes.skip(first).map(str::to_owned).collect()
}

fn title(node: Node) -> String {
    let title = node.children().find(|n| n.tag_name().name() == "title");
    title
        .and_then(|title| title.text())
        .unwrap_or_default()
        .to_owned()
}

fn attribute<'a>(node: Node<'a, '_>, name: &str) -> &'a str {
    node.attribute(name)
        .unwrap_or_else(|| panic!("{name} is missing in {node:?}"))
}
