//! The README's examples that need a running system.

use std::env;

use crate::system::output;

/// Runs each `$ grpcurl ...` of the README in its order, and compares what it prints with what the README shows.
pub async fn calls_are_as_shown() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let grpcurl = env::var("CHITCHAT_TEST_GRPCURL").unwrap_or_else(|_| "grpcurl".into());
    let mut calls = 0;
    for (command, shown) in examples(&readme) {
        if !command.starts_with("grpcurl ") {
            continue;
        }
        let given = output(&command.replacen("grpcurl", &grpcurl, 1)).await;
        let printed =
            String::from_utf8(given.stdout).unwrap() + &String::from_utf8(given.stderr).unwrap();
        assert_eq!(shape(&printed), shape(&shown), "$ {command}\n{printed}");
        calls += 1;
    }
    assert!(calls >= 6, "the README shows {calls} calls");
}

/// The commands of the README's `console` blocks, each with what it shows below it.
fn examples(readme: &str) -> Vec<(String, String)> {
    let mut examples: Vec<(String, String)> = Vec::new();
    for block in readme.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        let mut lines = block.lines();
        while let Some(line) = lines.next() {
            if let Some(command) = line.strip_prefix("$ ") {
                let mut command = command.to_owned();
                if command.ends_with("<<END") {
                    for line in lines.by_ref() {
                        command = command + "\n" + line;
                        if line == "END" {
                            break;
                        }
                    }
                }
                examples.push((command, String::new()));
            } else if let Some((_, shown)) = examples.last_mut() {
                *shown += line;
                shown.push('\n');
            }
        }
    }
    examples
}

/// Without what is another one each time: numbers, identities, and what others said.
fn shape(output: &str) -> Vec<String> {
    let secret = |line: &str| {
        let keys = [
            "\"session\"",
            "\"epoch\"",
            "\"traceparent\"",
            "\"acceptedAt\"",
        ];
        keys.into_iter()
            .find(|key| line.trim_start().starts_with(key))
            .map(str::to_owned)
    };
    let figures = |line: &str| {
        let mut shape = String::new();
        for c in line.trim_end().chars() {
            let c = if c.is_ascii_digit() { '0' } else { c };
            if c != '0' || !shape.ends_with('0') {
                shape.push(c);
            }
        }
        shape
    };
    let lines = output.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| secret(line).unwrap_or_else(|| figures(line)))
        .collect()
}
