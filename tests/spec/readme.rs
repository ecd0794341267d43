//! What the README says about the program and the repository. What it shows of the whole system is for `tests/compose.rs`.

use std::{collections::BTreeSet, fs, path::Path};

use regex::Regex;

use crate::support::program::chitchat;

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// Every first group of `pattern` in `text`.
fn all(pattern: &str, text: &str) -> BTreeSet<String> {
    let pattern = Regex::new(pattern).unwrap();
    let found = pattern.captures_iter(text);
    found.map(|captures| captures[1].to_owned()).collect()
}

#[tokio::test]
async fn the_table_of_settings_is_the_one_the_program_prints() {
    let printed = chitchat(["config", "--markdown"]).run().await;
    assert!(
        readme().contains(&printed.stdout),
        "README.md should hold what `chitchat config --markdown` prints:\n{}",
        printed.stdout
    );
}

#[tokio::test]
async fn every_subcommand_is_in_it_and_every_subcommand_in_it_exists() {
    let help = chitchat(["--help"]).run().await.stdout;
    let commands = help.split("Commands:").nth(1).unwrap();
    let commands = commands.split("Options:").next().unwrap();
    let exist = all(r"(?m)^  ([a-z]+) ", commands);

    let shown = all(r"(?:`chitchat|run --release --) ([a-z]+)", &readme());

    assert_eq!(shown, exist);
}

#[tokio::test]
async fn the_session_it_shows_is_the_one_that_the_demo_prints() {
    let directory = tempfile::tempdir().unwrap();
    let printed = chitchat(["demo"]).inside(&directory).run().await;
    assert!(
        readme().contains(&printed.stdout),
        "README.md should hold what `chitchat demo` prints:\n{}{}",
        printed.stdout,
        printed.stderr
    );
}

#[test]
fn every_file_it_points_to_is_there() {
    let readme = readme();
    let links = all(r"\]\(([^)#:]+)\)", &readme);
    assert!(!links.is_empty());
    for link in links {
        assert!(
            Path::new(env!("CARGO_MANIFEST_DIR")).join(&link).exists(),
            "{link}"
        );
    }
}

#[test]
fn every_place_in_it_that_it_points_to_is_there() {
    let readme = readme();
    let slug = |title: String| {
        let kept = title.to_lowercase().replace(' ', "-");
        kept.replace(|c: char| !c.is_alphanumeric() && c != '-', "")
    };
    let titles: BTreeSet<_> = all(r"(?m)^#+ (.*)$", &readme)
        .into_iter()
        .map(slug)
        .collect();
    let links = all(r"\]\(#([^)]+)\)", &readme);
    assert!(links.is_subset(&titles), "{links:?} {titles:?}");
}
