//! Figures for people: medians, ratios within a round, tables. And all of them as JSON.

use std::{fs, path::Path};

use anyhow::Context as _;
use serde::Serialize;

/// What some measurements come to.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Summary {
    pub median: f64,
    pub least: f64,
    pub greatest: f64,
    pub count: usize,
}

impl Summary {
    /// None of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let upper = *values.get(count / 2)?;
        let median = match count.is_multiple_of(2) {
            true => f64::midpoint(values[count / 2 - 1], upper),
            false => upper,
        };
        Some(Self {
            median,
            least: values[0],
            greatest: values[count - 1],
            count,
        })
    }

    /// The median, and in parentheses what it is the median of.
    pub fn words(&self) -> String {
        format!(
            "{:.3} ({:.3} to {:.3}, n={})",
            self.median, self.least, self.greatest, self.count
        )
    }
}

/// The median; not a number of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    Summary::of(values).map_or(f64::NAN, |summary| summary.median)
}

/// A ratio, unless one of both is too small to be measured.
pub fn ratio(of: f64, to: f64) -> Option<f64> {
    (of > 0.0 && to > 0.0).then(|| of / to)
}

/// A Markdown table: columns of words to the left, of figures to the right.
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&'static str]) -> Self {
        Self {
            head: head.to_vec(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn print(&self) {
        println!("| {} |", self.head.join(" | "));
        println!("|---|{}", "---:|".repeat(self.head.len() - 1));
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
        println!();
    }
}

/// Three digits that count; a dash for what was not measured.
pub fn three_digits(value: f64) -> String {
    if value.is_nan() {
        return "-".into();
    }
    if value == 0.0 {
        return "0".into();
    }
    let before_point = value.abs().log10().floor() as i32 + 1;
    let after_point = usize::try_from(3 - before_point).unwrap_or(0).min(4);
    format!("{value:.after_point$}")
}

/// Without a fraction; a dash for what was not measured.
pub fn whole(value: f64) -> String {
    match value.is_nan() {
        true => "-".into(),
        false => format!("{value:.0}"),
    }
}

/// Microseconds as milliseconds.
pub fn milliseconds(microseconds: f64) -> String {
    match microseconds.is_nan() {
        true => "-".into(),
        false => format!("{} ms", three_digits(microseconds / 1e3)),
    }
}

/// Writes all figures where they are wanted.
///
/// # Errors
/// The file cannot be written.
pub fn write_json(file: Option<&Path>, figures: &impl Serialize) -> anyhow::Result<()> {
    let Some(file) = file else { return Ok(()) };
    let json = serde_json::to_string_pretty(figures)?;
    fs::write(file, json + "\n").with_context(|| format!("cannot write {}", file.display()))
}
