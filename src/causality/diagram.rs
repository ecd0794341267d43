//! Space-time diagrams of a recorded run, by logical time.
//!
//! ```text
//!  Run ──► HappenedBefore ──► picture ──► layout ──► svg ──► html      drawn
//!          vector clocks      what is     pages,     mermaid, text     written
//!                             to be seen  rows       shiviz            for another program
//! ```
//!
//! One lifeline for each process, time downwards by Lamport's clocks; for each message, arrows from its sending to the
//! service and on to each participant that received it. What can be told from spans is told, and no more:
//!
//! | shown | derived from |
//! |---|---|
//! | a process | `lamport.process.id` and `service.instance.id`: who starts again is another one |
//! | the service started again | another `service.instance.id` of its steps; drawn across its one line |
//! | gone without a word | a LEAVE that the service ordered with no parent and no timestamp: its line breaks after its last step |
//! | refused | an ordering with `chat.event.type` `refusal` |
//! | came back | a higher `chat.session.resumes`: the session was resumed on a new connection; a gap in the line before the next step |
//! | replayed | `chat.event.replayed`: missed while the connection was lost, and read after it |
//! | late | no replay, and by its own wall clock half a second slower than that participant's fastest delivery: a slow reader, or the replay of a client that does not tell |
//! | a lost span | a parent that was not recorded: a hollow point where its message's timestamp says, dashed arrows |
//! | never arrived | a sending that nothing names as its parent |
//! | concurrent | no path from what was ordered before to the sending ([`HappenedBefore`]); not claimed where spans are missing between |

mod html;
mod layout;
mod lifeline;
mod markup;
mod mermaid;
mod picture;
mod shiviz;
mod svg;
mod text;
mod words;

use self::{
    layout::{Page, pages},
    picture::Picture,
    svg::Sheet,
};
use super::{
    happened_before::{HappenedBefore, TooMany},
    run::Run,
};
use crate::telemetry::JaegerUi;

/// How a diagram is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A drawing for browsers, documents and printers
    Svg,
    /// The drawing in a page of its own: pan, zoom, search, causes and effects
    Html,
    /// A Mermaid sequence diagram, as GitHub draws them
    Mermaid,
    /// For a terminal
    Text,
    /// A log for ShiViz, with vector clocks
    Shiviz,
}

/// How a diagram is to be made.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Events on one page; none: all. A page is a text of its own.
    pub page_events: Option<usize>,
    /// Where elements lead.
    pub jaeger: Option<JaegerUi>,
    /// Text alone: draw with ASCII.
    pub ascii: bool,
}

impl Format {
    /// The format that a file's name asks for by its ending: `.svg`, `.html` or `.htm`, `.mmd` or `.mermaid`, `.txt`,
    /// `.log` or `.shiviz`.
    #[must_use]
    pub fn of_ending(ending: &str) -> Option<Self> {
        match ending.to_ascii_lowercase().as_str() {
            "svg" => Some(Self::Svg),
            "html" | "htm" => Some(Self::Html),
            "mmd" | "mermaid" => Some(Self::Mermaid),
            "txt" => Some(Self::Text),
            "log" | "shiviz" => Some(Self::Shiviz),
            _ => None,
        }
    }
}

/// Draws `run`: one text for each page, at least one.
///
/// ShiViz compares a whole execution, so it gets one page whatever the options say. A Mermaid diagram is cut further
/// where [`Options::page_events`] are set and a page would have more characters than Mermaid draws.
///
/// # Errors
/// [`TooMany`] steps to compare each with each.
pub fn draw(run: &Run, format: Format, options: &Options) -> Result<Vec<String>, TooMany> {
    let order = HappenedBefore::new(run)?;
    let picture = Picture::new(run, &order);
    let pages = match options.page_events {
        Some(per_page) => pages(&picture, per_page),
        None => vec![Page::new(&picture, 0..picture.events.len())],
    };
    let jaeger = options.jaeger.as_ref();
    let sheet = |page: usize| Sheet {
        number: page + 1,
        of: pages.len(),
        jaeger,
        embedded: format == Format::Html,
    };
    Ok(match format {
        Format::Svg => pages
            .iter()
            .enumerate()
            .map(|(number, page)| svg::draw(&picture, page, sheet(number)))
            .collect(),
        Format::Html => pages
            .iter()
            .enumerate()
            .map(|(number, page)| html::draw(&picture, page, sheet(number)))
            .collect(),
        Format::Mermaid if options.page_events.is_some() => pages
            .iter()
            .flat_map(|page| mermaid_pages(&picture, page))
            .collect(),
        Format::Mermaid => pages
            .iter()
            .map(|page| mermaid::draw(&picture, page))
            .collect(),
        Format::Text => pages
            .iter()
            .map(|page| text::draw(&picture, page, options.ascii))
            .collect(),
        Format::Shiviz => vec![shiviz::log(&picture)],
    })
}

/// The diagram of `page`; of its halves, as often as it takes until Mermaid draws them. One event is never cut.
fn mermaid_pages(picture: &Picture<'_>, page: &Page) -> Vec<String> {
    let whole = mermaid::draw(picture, page);
    let events = page.events.clone();
    if whole.chars().count() <= mermaid::CHARACTERS_MAX || events.len() < 2 {
        return vec![whole];
    }
    let middle = events.start + events.len() / 2;
    [events.start..middle, middle..events.end]
        .into_iter()
        .flat_map(|half| mermaid_pages(picture, &Page::new(picture, half)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_of_a_file_says_its_format() {
        assert_eq!(Format::of_ending("SVG"), Some(Format::Svg));
        assert_eq!(Format::of_ending("mmd"), Some(Format::Mermaid));
        assert_eq!(Format::of_ending("png"), None);
    }
}
