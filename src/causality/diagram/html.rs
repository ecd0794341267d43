//! A page of its own around the drawing: pan, zoom, search, and a step's causes and effects. One file, no network.
//!
//! The page forbids itself everything from outside, and every script and style but its own, by their hashes: what is
//! in a chat can never become a part of the program. Its state is in its address (`#select=p12&search=hello`), so that a
//! link leads to what somebody looks at.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    layout::Page,
    markup::Markup,
    picture::Picture,
    svg::{self, Sheet},
    words,
};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What the script is told beside what the drawing says.
#[derive(Debug, Serialize)]
struct Told<'a> {
    /// Names of the lifelines.
    lifelines: Vec<&'a str>,
    /// Of each step on the page: its point, its process, the step before it in its process and the one that caused it. The
    /// two last are where in this list; -1 where there is none on the page.
    steps: Vec<(usize, usize, i64, i64)>,
    events: Vec<ToldEvent>,
    jaeger: Option<String>,
}

/// What is searched.
#[derive(Debug, Serialize)]
struct ToldEvent {
    id: usize,
    text: String,
    /// Who took part: the lifelines that it touches.
    lifelines: Vec<usize>,
    trace: String,
}

/// The page of a drawing.
pub(super) fn draw(picture: &Picture<'_>, page: &Page, sheet: Sheet<'_>) -> String {
    let drawing = svg::draw(
        picture,
        page,
        Sheet {
            jaeger: None,
            ..sheet
        },
    );
    let style = format!("{}{STYLE}", svg::STYLE);
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
        hash(&style),
        hash(SCRIPT)
    );
    let mut markup = Markup::default();
    markup.raw("<!DOCTYPE html>\n");
    markup.start("html", &[("lang", &"en")]);
    markup.start("head", &[]);
    markup.empty("meta", &[("charset", &"utf-8")]);
    markup.empty(
        "meta",
        &[
            ("http-equiv", &"Content-Security-Policy"),
            ("content", &policy),
        ],
    );
    markup.empty(
        "meta",
        &[
            ("name", &"viewport"),
            ("content", &"width=device-width, initial-scale=1"),
        ],
    );
    markup.empty(
        "meta",
        &[("name", &"color-scheme"), ("content", &"light dark")],
    );
    markup.leaf("title", &[], "Chit Chat: space-time diagram");
    markup.raw(&format!("<style>{style}</style>\n"));
    markup.end();
    markup.start("body", &[]);
    markup.raw(include_str!("page.html"));
    markup.start("main", &[("id", &"stage"), ("tabindex", &"0")]);
    markup.raw(&drawing);
    markup.end();
    markup.raw(&format!(
        "<script type=\"application/json\" id=\"told\">{}</script>\n<script>{SCRIPT}</script>\n",
        told(picture, page, sheet)
    ));
    markup.finish()
}

fn told(picture: &Picture<'_>, page: &Page, sheet: Sheet<'_>) -> String {
    let events = &picture.events[page.events.clone()];
    // In an order in which each comes after its causes.
    let mut points = vec![None; picture.run.steps.len()];
    for event in events {
        for &point in &event.points {
            if let Some(step) = picture.points[point].step {
                points[step] = Some(point);
            }
        }
    }
    let mut places: Vec<i64> = vec![-1; points.len()];
    let mut last: Vec<i64> = vec![-1; picture.run.processes.len()];
    let mut steps = Vec::new();
    for &step in picture.order.sequence() {
        let Some(point) = points[step] else { continue };
        let place = i64::try_from(steps.len()).unwrap_or(i64::MAX);
        let (process, _) = picture.order.place(step);
        let cause = picture.order.cause(step).map_or(-1, |cause| places[cause]);
        steps.push((point, picture.points[point].lifeline, last[process], cause));
        places[step] = place;
        last[process] = place;
    }
    let told = Told {
        lifelines: picture
            .lifelines
            .iter()
            .map(|lifeline| lifeline.name.as_str())
            .collect(),
        steps,
        events: page
            .events
            .clone()
            .zip(events)
            .map(|(id, event)| {
                let of = |&point: &usize| picture.points[point].lifeline;
                let mut lifelines: Vec<usize> = event.points.iter().map(of).collect();
                lifelines.sort_unstable();
                lifelines.dedup();
                ToldEvent {
                    id,
                    text: format!("{} {}", words::label(event), event.text),
                    lifelines,
                    trace: event.trace.to_string(),
                }
            })
            .collect(),
        jaeger: sheet.jaeger.map(ToString::to_string),
    };
    let json =
        serde_json::to_string(&told).expect("texts and numbers under fixed keys always encode");
    // Nothing of it may end the element that it stands in, nor begin a comment there.
    json.replace('<', "\\u003c")
}

/// A source of a content security policy that allows exactly `text`.
fn hash(text: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}
