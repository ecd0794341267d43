//! `chitchat config`: the effective configuration and where each value comes from.

use std::fmt::Write as _;

use super::{Context, exit::Exit, flags, print};
use crate::config::{self, Entry, SETTINGS};

/// The settings that the flags of the other subcommands change can be given here too, to see what they would do.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON array of `{key, value, origin}`
    #[arg(long)]
    json: bool,

    /// Print every setting with its default and what it may be, as a table in Markdown
    #[arg(long, conflicts_with = "json")]
    markdown: bool,

    #[command(flatten)]
    server: flags::Server,

    #[command(flatten)]
    room: flags::Room,

    #[command(flatten)]
    participant: flags::Participant,

    #[command(flatten)]
    serving: flags::Serving,
}

/// Prints the settings in the asked form.
///
/// # Errors
/// Standard output cannot be written.
pub async fn run(args: Args, context: Context) -> anyhow::Result<Exit> {
    let text = if args.markdown {
        reference()
    } else if args.json {
        serde_json::to_string_pretty(&context.entries)? + "\n"
    } else {
        table(&context.entries)
    };
    print(&text)?;
    Ok(Exit::Good)
}

/// For people: aligned columns.
fn table(entries: &[Entry]) -> String {
    let row = |entry: &Entry| [entry.key.to_owned(), shown(entry), entry.origin.clone()];
    let head = ["KEY", "VALUE", "ORIGIN"].map(String::from);
    let rows: Vec<_> = std::iter::once(head)
        .chain(entries.iter().map(row))
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let (key, value) = (width(0), width(1));
    rows.iter().fold(String::new(), |mut table, [a, b, c]| {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{a:key$}  {b:value$}  {c}");
        table
    })
}

/// For a README.
fn reference() -> String {
    let defaults = config::defaults();
    let rows = SETTINGS.iter().zip(&defaults).map(|(setting, entry)| {
        let (key, default) = (setting.key, shown(entry));
        format!(
            "| `{key}` | `{default}` | {} | {} |\n",
            setting.right(),
            setting.meaning
        )
    });
    "| setting | default | may be | meaning |\n|---|---|---|---|\n".to_owned()
        + &rows.collect::<String>()
}

/// The value as the file would hold it.
fn shown(entry: &Entry) -> String {
    match &entry.value {
        serde_json::Value::Null => "none".into(),
        value => value.to_string(),
    }
}
