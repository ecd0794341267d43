//! Formats for other programs keep those programs' rules.

use std::collections::{BTreeMap, BTreeSet};

use chitchat::causality::diagram::{Format, Options};
use regex::Regex;
use unicode_width::UnicodeWidthStr as _;

use super::{draw, draw_pages, hostile::hostile_steps, recorded};
use crate::support::{program::chitchat, spans::conversation};

/// What ShiViz asks of a log, checked as it does (`modelGraph.js`, `vectorTimestamp.js`): how many events each host has.
fn as_shiviz_reads_it(log: &str) -> BTreeMap<String, usize> {
    let mut lines = log.lines();
    // JavaScript's named groups and Rust's are written alike.
    let parser = lines
        .next()
        .unwrap()
        .replace('{', r"\{")
        .replace('}', r"\}");
    let parser = Regex::new(&parser).unwrap();
    assert_eq!(lines.next(), Some(""), "one execution, so no delimiter");
    let rest: Vec<&str> = lines.collect();
    let rest = rest.join("\n");
    let mut known: BTreeMap<(String, u64), BTreeMap<String, u64>> = BTreeMap::new();
    let mut last: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let mut events = Vec::new();
    for found in parser.captures_iter(&rest) {
        let host = found["host"].to_owned();
        let clock: BTreeMap<String, u64> = serde_json::from_str(&found["clock"]).unwrap();
        events.push((host, clock));
    }
    assert_eq!(events.len() * 2, rest.lines().count(), "each line is read");
    for (host, clock) in &events {
        let own = clock.get(host).copied().expect("its own entry");
        let before = last.get(host).map_or(0, |clock| clock[host]);
        assert_eq!(own, before + 1, "{host} rises by one");
        // Transitive: it is exactly what it knew, and what those knew whom it heard of. What it heard of is known, for
        // each line comes after what caused it.
        let mut sum = last.get(host).cloned().unwrap_or_default();
        sum.insert(host.clone(), own);
        for (other, &place) in clock.iter().filter(|(other, _)| *other != host) {
            let told = known.get(&(other.clone(), place));
            let told = told.unwrap_or_else(|| panic!("{host} knows of {other} {place}"));
            for (of, &place) in told {
                let entry = sum.entry(of.clone()).or_default();
                *entry = place.max(*entry);
            }
        }
        assert_eq!(&sum, clock, "{host} {own}");
        known.insert((host.clone(), own), clock.clone());
        last.insert(host.clone(), clock.clone());
    }
    last.into_iter()
        .map(|(host, clock)| {
            let count = usize::try_from(clock[&host]).unwrap();
            (host, count)
        })
        .collect()
}

#[tokio::test]
async fn shiviz_takes_the_log_of_the_report_s_session() {
    let directory = tempfile::tempdir().unwrap();
    let spans = recorded(directory.path()).await;
    let run = chitchat(["diagram", "--format", "shiviz"])
        .argument("--spans")
        .argument(&spans)
        .run()
        .await;
    let hosts = as_shiviz_reads_it(&run.stdout);
    let names: Vec<&str> = hosts.keys().map(String::as_str).collect();
    assert_eq!(names, ["Alex-3300", "Aske-4800", "Bob-9400", "server"]);
    assert_eq!(hosts.values().sum::<usize>(), super::spans(&spans).len());
}

#[test]
fn shiviz_takes_names_of_any_kind_and_each_host_has_its_own() {
    let mut steps = hostile_steps();
    let hosts = as_shiviz_reads_it(&draw(steps.clone(), Format::Shiviz));
    assert_eq!(hosts.values().sum::<usize>(), steps.len());
    let plain = Regex::new("^[A-Za-z0-9_.-]+$").unwrap();
    for host in hosts.keys() {
        assert!(plain.is_match(host), "{host}");
        assert!(!["__proto__", "constructor"].contains(&host.as_str()));
    }

    // Everybody is called the same, and has one id.
    for step in &mut steps {
        step.participant = "Ada".into();
        if !step.process.is_service() {
            step.process.id = "7".into();
        }
    }
    let processes: BTreeSet<_> = steps.iter().map(|step| step.process.clone()).collect();
    let hosts = as_shiviz_reads_it(&draw(steps, Format::Shiviz));
    assert_eq!(hosts.len(), processes.len());
}

#[test]
fn shiviz_takes_a_run_with_lost_spans() {
    let steps = conversation(4, 40, 1_790_000_000_000_000_000, 1_000_000);
    let kept: Vec<_> = steps
        .into_iter()
        .enumerate()
        .filter(|(index, _)| index % 5 != 3)
        .map(|(_, step)| step)
        .collect();
    let hosts = as_shiviz_reads_it(&draw(kept.clone(), Format::Shiviz));
    assert_eq!(hosts.values().sum::<usize>(), kept.len());
}

/// Each line is a statement that Mermaid knows, with nothing in its text that means something to it.
fn assert_mermaid(diagram: &str) {
    let mut lines = diagram.lines();
    assert_eq!(lines.next(), Some("sequenceDiagram"));
    let statement = Regex::new(
        r"^    (%% .*|participant p\d+ as (?<name>.*)|p\d+(->>|-->>|-x)p\d+: (?<text>.*)|Note over p\d+: (?<note>.*))$",
    )
    .unwrap();
    let escape = Regex::new(r"#\d+;").unwrap();
    for line in lines {
        let found = statement
            .captures(line)
            .unwrap_or_else(|| panic!("no statement: {line}"));
        for group in ["name", "text", "note"] {
            let text = found.name(group).map_or("", |text| text.as_str());
            let text = escape.replace_all(text, "");
            let bad = text.find(['#', ';', '%', '<', '>', '`', '$', ':', '{', '}', '"']);
            assert_eq!(bad, None, "{line}");
            assert!(!text.to_lowercase().contains("end"), "{line}");
        }
    }
}

#[tokio::test]
async fn mermaid_knows_each_line_of_the_report_s_session() {
    let directory = tempfile::tempdir().unwrap();
    let spans = recorded(directory.path()).await;
    let run = chitchat(["diagram", "--format", "mermaid"])
        .argument("--spans")
        .argument(&spans)
        .run()
        .await;
    assert_mermaid(&run.stdout);
    for line in [
        "    participant p1 as Alex\n",
        "    p1->>p0: Alex#58; Hello World! [4 → 5]\n",
        "    p0->>p1: [5 → 6]\n",
        "    Note over p0: Bob is gone [36]\n",
        "(concurrent with 15) [14 → 16]\n",
    ] {
        assert!(run.stdout.contains(line), "{line}: {}", run.stdout);
    }
}

#[test]
fn mermaid_is_not_led_astray_by_what_was_said() {
    assert_mermaid(&draw(hostile_steps(), Format::Mermaid));
}

#[test]
fn columns_of_a_text_stand_under_their_names_however_wide_those_are() {
    let mut steps = conversation(3, 6, 1_790_000_000_000_000_000, 1_000_000);
    for step in &mut steps {
        step.participant = match &*step.participant {
            "Participant 1" => "日本語の長い名前です",
            "Participant 2" => "Ærøskøbing",
            _ => "👩‍🚀",
        }
        .into();
    }
    let text = draw(steps.clone(), Format::Text);
    let mut lines = text.lines();
    let header = lines.next().unwrap();
    for name in ["server", "日本語", "Ærøskøbing", "👩‍🚀"] {
        let before = header.find(name).map(|at| header[..at].width());
        let column = before.unwrap_or_else(|| panic!("{name}: {header}"));
        assert_eq!(column % 13, 9, "{name}: {header}");
    }
    for line in lines.take_while(|line| !line.is_empty()) {
        let signs: Vec<char> = line.chars().collect();
        for (column, sign) in signs.iter().enumerate().take(9 + 3 * 13 + 1).skip(6) {
            if "│○■●├┤".contains(*sign) {
                assert_eq!(column % 13, 9, "{line}");
            }
        }
    }

    let options = Options {
        ascii: true,
        ..Options::default()
    };
    let names = conversation(3, 6, 1_790_000_000_000_000_000, 1_000_000);
    let plain = draw_pages(names, Format::Text, &options).concat();
    assert!(plain.is_ascii(), "{plain}");
}

#[tokio::test]
async fn the_ending_says_the_format_and_format_says_it_better() {
    let directory = tempfile::tempdir().unwrap();
    let spans = recorded(directory.path()).await;
    for (file, more, begins) in [
        ("a.svg", None, "<svg "),
        ("a.html", None, "<!DOCTYPE html>"),
        ("a.mmd", None, "sequenceDiagram\n"),
        ("a.mermaid", None, "sequenceDiagram\n"),
        ("a.txt", None, "    L    server"),
        ("a.log", None, "(?<host>"),
        ("a.shiviz", None, "(?<host>"),
        ("a.doc", Some("svg"), "<svg "),
        ("b.svg", Some("text"), "    L    server"),
    ] {
        let path = directory.path().join(file);
        let format = more.map(|format| format!("--format={format}"));
        let run = chitchat(["diagram"])
            .argument("--spans")
            .argument(&spans)
            .argument("-o")
            .argument(&path)
            .arguments(&format)
            .run()
            .await;
        assert_eq!(run.code, 0, "{file}: {}", run.stderr);
        let written = std::fs::read_to_string(path).unwrap();
        assert!(written.starts_with(begins), "{file}");
    }
}

#[tokio::test]
async fn without_a_file_a_text_is_printed_and_a_file_without_a_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let spans = recorded(directory.path()).await;
    let run = chitchat(["diagram", "--spans"])
        .argument(&spans)
        .run()
        .await;
    assert_eq!(run.code, 0);
    assert!(run.stdout.contains("Alex: Hello World!"), "{}", run.stdout);

    for wrong in [
        ["-o", "drawing.png"],
        ["--jaeger-links", "javascript:alert(1)"],
        ["--page-events", "5"],
    ] {
        let run = chitchat(["diagram", "--spans"])
            .argument(&spans)
            .arguments(wrong)
            .run()
            .await;
        assert_eq!(run.code, 2, "{wrong:?}: {}", run.stderr);
    }
}
