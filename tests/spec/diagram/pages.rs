//! A long run is cut into pages, and every event is on one of them.

use std::{collections::BTreeSet, fs};

use chitchat::causality::diagram::{Format, Options};

use super::draw_pages;
use crate::support::{
    drawn,
    program::chitchat,
    spans::{conversation, line},
};

#[test]
fn pages_hold_every_event_once_and_each_of_its_steps() {
    let steps = conversation(5, 250, 1_790_000_000_000_000_000, 1_000_000);
    let options = Options {
        page_events: Some(100),
        ..Options::default()
    };
    let pages = draw_pages(steps.clone(), Format::Svg, &options);
    let pages: Vec<_> = pages.iter().map(|page| drawn::read(page)).collect();

    let events: Vec<usize> = pages.iter().map(|page| page.events.len()).collect();
    assert_eq!(events, [100, 100, 50]);
    let traces = pages.iter().flat_map(|page| &page.events);
    let traces: BTreeSet<&str> = traces.map(|event| event.trace.as_str()).collect();
    assert_eq!(traces.len(), 250);
    let drawn = pages.iter().map(|page| page.steps.len()).sum::<usize>();
    assert_eq!(drawn, steps.len());
    for (page, next) in pages.iter().zip(&pages[1..]) {
        assert!(page.events.last().unwrap().time < next.events[0].time);
    }
    for page in &pages {
        assert_eq!(page.lifelines.len(), 6, "all were there all the time");
    }
}

#[tokio::test]
async fn pages_become_numbered_files_whose_names_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let spans = directory.path().join("spans.jsonl");
    let steps = conversation(2, 101, 1_790_000_000_000_000_000, 1_000_000);
    fs::write(&spans, line(&steps)).unwrap();
    let draw = |file: &str, more: &[&str]| {
        chitchat(["diagram"])
            .argument("--spans")
            .argument(&spans)
            .argument("-o")
            .argument(directory.path().join(file))
            .arguments(more)
            .run()
    };
    let exists = |file: &str| directory.path().join(file).exists();

    let run = draw("d.svg", &[]).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.stdout.lines().count(), 2, "{}", run.stdout);
    assert!(run.stdout.lines().next().unwrap().ends_with("/d-1.svg"));
    assert_eq!(
        ["d.svg", "d-1.svg", "d-2.svg", "d-3.svg"].map(exists),
        [false, true, true, false]
    );

    let run = draw("whole.svg", &["--page-events", "101"]).await;
    assert_eq!((run.code, run.stdout.as_str()), (0, ""));
    assert!(exists("whole.svg"));

    let run = draw("part.svg", &["--from-sequence", "100"]).await;
    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{}", run.stderr);
    let part = fs::read_to_string(directory.path().join("part.svg")).unwrap();
    assert_eq!(drawn::read(&part).events.len(), 2);
}

#[test]
fn a_mermaid_page_has_no_more_than_mermaid_draws() {
    let steps = conversation(20, 100, 1_790_000_000_000_000_000, 1_000_000);
    let options = Options {
        page_events: Some(100),
        ..Options::default()
    };
    let pages = draw_pages(steps, Format::Mermaid, &options);
    assert!(pages.len() > 1);
    for page in &pages {
        assert!(page.chars().count() <= 50_000);
    }
    let arrows = pages.iter().flat_map(|page| page.lines());
    let arrows = arrows.filter(|line| line.contains("->>"));
    assert_eq!(arrows.count(), 100 * 21, "to the service, and to twenty");
}
