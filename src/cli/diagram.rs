//! `chitchat diagram`: a space-time diagram of a recorded run.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{Context, exit::Exit, print, recording::Recording};
use crate::{
    causality::{
        diagram::{self, Format, Options},
        lost::Lost,
        run::Run,
        step,
    },
    client::{render, stdio::tell},
    telemetry::JaegerUi,
};

/// Events on one page of a drawing, where `--page-events` does not say.
///
/// Unit: events, of which each is about three rows: some 300 rows, four screens high. Source: longer drawings are slow to
/// scroll, and printers and editors cut them.
const PAGE_EVENTS: usize = 100;

/// The same for a page to search and to walk through, which is better the more it has.
///
/// Unit: events. Source: one page of 2,000 events of 20 participants took a browser ten seconds to open.
const HTML_PAGE_EVENTS: usize = 500;

/// What `chitchat diagram --help` says beside its flags.
const HELP: &str = "\
One lifeline for each process, time downwards by Lamport's clocks: each message
from its sending to the service and on to all who read it. Marked are refusals,
departures without a word, restarts of the service, participants that came
back to their session and what was replayed to them, late deliveries, messages
whose sender had not read what was ordered before (concurrent events), and spans
that are missing.

FILE's ending says the format: .svg, .html, .mmd or .mermaid, .txt, .log or
.shiviz. An SVG or Mermaid file has up to 100 events, an HTML file 500; more
become FILE-1, FILE-2 and so on, each event whole and on one of them. Causes and
effects that an HTML page shows end at its edges. Without FILE all is one page,
on standard output.

  chitchat diagram --spans spans.jsonl -o session.svg
  chitchat diagram --jaeger http://localhost:16686 --room lobby --since 1h -o page.html
  chitchat diagram --spans spans.jsonl";

/// Draw a recorded run: a space-time diagram by logical time
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    recording: Recording,

    /// Write to this file; its ending says the format
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// The format, whatever the file is called; without a file: text
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Events on one page; more pages than one become FILE-1, FILE-2 ...
    #[arg(long, value_name = "EVENTS", requires = "output")]
    page_events: Option<NonZeroUsize>,

    /// Text alone: draw with ASCII, for where boxes cannot be shown
    #[arg(long)]
    ascii: bool,
}

/// Draws what was recorded.
///
/// # Errors
/// With [`Exit::Usage`]: nothing says the format, the source cannot be used, or it has too much to compare; otherwise a
/// file or standard output cannot be written.
pub async fn run(args: Args, context: Context) -> anyhow::Result<Exit> {
    let format =
        format(args.format, args.output.as_deref()).map_err(|error| Exit::Usage.because(error))?;
    let jaeger = args.recording.pages(context.config.client.jaeger.as_ref());
    let per_page = match (&args.output, args.page_events) {
        (None, _) => None,
        (Some(_), Some(events)) => Some(events.get()),
        (Some(_), None) => per_page(format),
    };
    let options = Options {
        page_events: per_page,
        jaeger,
        ascii: args.ascii,
    };
    let recording = args.recording.load().await?;
    report(&recording);
    let pages = diagram::draw(&Run::new(recording), format, &options)
        .map_err(|error| Exit::Usage.because(error))?;
    match args.output {
        Some(file) => write(&file, &pages)?,
        None => print(&pages.concat())?,
    }
    Ok(Exit::Good)
}

/// Draws `run` to `file`, as `chitchat diagram --output FILE` does.
///
/// # Errors
/// There is too much to compare, or the file cannot be written.
pub(super) fn draw_to(
    file: &Path,
    format: Format,
    run: &Run,
    jaeger: Option<JaegerUi>,
) -> anyhow::Result<()> {
    let options = Options {
        page_events: per_page(format),
        jaeger,
        ascii: false,
    };
    write(file, &diagram::draw(run, format, &options)?)
}

/// Events on one page, where nobody says.
fn per_page(format: Format) -> Option<usize> {
    match format {
        Format::Svg | Format::Mermaid => Some(PAGE_EVENTS),
        Format::Html => Some(HTML_PAGE_EVENTS),
        Format::Text | Format::Shiviz => None,
    }
}

/// Says on standard error what the drawing lacks because it could not be read.
fn report(recording: &step::Recording) {
    let intake = &recording.intake;
    for warning in &intake.warnings {
        tell(&render::clean(warning));
    }
    let missing = |lost: &Lost| (lost.numbers.end() - lost.numbers.start()).saturating_add(1);
    let lost = recording.lost.iter().map(missing);
    let lost = lost.fold(0, u64::saturating_add);
    if lost > 0 {
        tell(&format!(
            "{lost} spans were lost, as the numbers of those around them tell: what they showed is missing"
        ));
    }
    if intake.faulty > 0 {
        tell(&format!(
            "{} spans of Chit Chat lack something that a step needs, and are not drawn:",
            intake.faulty
        ));
    }
    for fault in &intake.faults {
        tell(&render::clean(fault));
    }
}

/// The format that was asked for, or else the one that `file` has by its ending; text without a file.
///
/// # Errors
/// Nothing says the format.
pub(super) fn format(asked: Option<Format>, file: Option<&Path>) -> anyhow::Result<Format> {
    let Some(file) = file else {
        return Ok(asked.unwrap_or(Format::Text));
    };
    let ending = file.extension().unwrap_or_default().to_string_lossy();
    asked.or(Format::of_ending(&ending)).with_context(|| {
        format!(
            "{} has none of the endings .svg, .html, .mmd, .mermaid, .txt, .log, .shiviz; or say --format",
            file.display()
        )
    })
}

/// Writes one page to `file`; more of them to files beside it, numbered, and names them.
fn write(file: &Path, pages: &[String]) -> anyhow::Result<()> {
    if let [page] = pages {
        return put(file, page);
    }
    for (page, number) in pages.iter().zip(1..) {
        let file = numbered(file, number);
        put(&file, page)?;
        print(&format!("{}\n", file.display()))?;
    }
    Ok(())
}

fn put(file: &Path, page: &str) -> anyhow::Result<()> {
    fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))
}

/// `drawing-2.svg` of `drawing.svg`.
fn numbered(file: &Path, number: usize) -> PathBuf {
    let mut name = file.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    let mut numbered = file.with_file_name(name);
    if let Some(ending) = file.extension() {
        // Not `set_extension`, which would take a part of a stem with a dot for one.
        let name = numbered.as_mut_os_string();
        name.push(".");
        name.push(ending);
    }
    numbered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_numbered_before_the_ending() {
        let named = |file: &str| numbered(Path::new(file), 2).display().to_string();
        assert_eq!(named("d.svg"), "d-2.svg");
        assert_eq!(named("dir/a.b.svg"), "dir/a.b-2.svg");
        assert_eq!(named("plain"), "plain-2");
    }
}
