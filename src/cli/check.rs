//! `chitchat check`: does a server keep the assignment's rules?

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, anyhow};
use http::Uri;

use super::{Context, exit::Exit, print};
use crate::{
    bench::progress::{Progress, Stage},
    check::{self, Path, Plan, RULES, Rule, SOURCES},
    config::duration,
};

/// Check a server, of whatever make, against the assignment's rules
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_HELP, after_long_help = LONG_HELP)]
pub struct Args {
    /// The server
    #[arg(value_name = "HOST:PORT", required_unless_present = "list", value_parser = server)]
    server: Option<Uri>,

    /// Call the server by this name; otherwise chitchat.v1 is tried, and then itu.chitchat
    #[arg(long, value_name = "PACKAGE")]
    path: Option<Path>,

    /// Check these rules alone
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = rule)]
    only: Vec<&'static Rule>,

    /// How long an answer may take
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = long)]
    timeout: Duration,

    /// How long it may take until a crash is announced: servers may wait for the participant to come back, Chit Chat's
    /// own 5 s unless told otherwise (server.grace)
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = long)]
    crash_timeout: Duration,

    /// The verdicts as one document of JSON
    #[arg(long)]
    json: bool,

    /// List the rules, and where they come from, and do nothing
    #[arg(long)]
    list: bool,
}

/// What `-h` says of exit codes; [`LONG_HELP`] ends with the same.
const EXIT_HELP: &str = "\
Exit codes:
  0  no rule is broken
  1  some are
  2  usage is wrong, or there is no server that could be judged";

const LONG_HELP: &str = "\
Plays a session with the server, as participants of its own, and judges each
rule by what they read. The server must offer chitchat.v1.ChatService/Chat of the
proto file, or itu.chitchat.ChatService/Chat of the report; nothing else is
needed.

What it does to the server: some fifty participants, up to eight at one time,
with names such as Ada-3f2a-001, join rooms named check-3f2a-1 and so on, send
some 1,600 messages, and leave. A server that knows no rooms has one, and whoever
else is in it reads all that. A few connections are cut, one stops reading, some
carry broken messages. A server that such a client can end is ended. The server's
clock goes forward by some thousands.

Exit codes:
  0  no rule is broken
  1  some are
  2  usage is wrong, or there is no server that could be judged";

/// Prints the verdicts.
///
/// # Errors
/// There is no server that could be judged.
pub async fn run(args: Args, _: Context) -> anyhow::Result<Exit> {
    if args.list {
        print(&list())?;
        return Ok(Exit::Good);
    }
    let server = args.server.context("clap requires it")?;
    let plan = Plan {
        server: server.clone(),
        path: args.path,
        patience: args.timeout,
        crash_patience: args.crash_timeout,
        rules: wanted(&args.only),
    };
    let progress = Progress::new("rules");
    let report = check::run(&plan, |step| {
        progress.show_stage(&Stage {
            done: step.decided as f64 / step.of as f64,
            label: format!("{}/{}  {}", step.decided, step.of, step.scene),
        });
    });
    let report = report.await;
    drop(progress);
    let report = report.map_err(|fault| Exit::Usage.because(anyhow!(fault).context(server)))?;
    print(&if args.json {
        report.json()
    } else {
        report.table()
    })?;
    Ok(match report.counts() {
        (_, 1.., _) => Exit::Failed,
        (0, ..) => Exit::Usage,
        _ => Exit::Good,
    })
}

/// In the order of the rules; all if none are named.
fn wanted(only: &[&'static Rule]) -> Vec<&'static Rule> {
    let is_wanted = |rule: &&Rule| only.is_empty() || only.iter().any(|one| one.id == rule.id);
    RULES.iter().filter(is_wanted).collect()
}

fn list() -> String {
    let width = RULES.iter().map(|rule| rule.id.len()).max().unwrap_or(0);
    let mut list = String::new();
    for rule in RULES {
        let sources = rule.sources.join(" ");
        // A String takes whatever is written to it.
        let _ = writeln!(list, "{:<width$}  {sources:<5}  {}", rule.id, rule.sentence);
    }
    list.push_str("\nThe assignment's requirements (S), and faults that implementations were found to have (F):\n");
    for (source, meaning) in SOURCES {
        let _ = writeln!(list, "  {source}  {meaning}");
    }
    list
}

fn server(text: &str) -> Result<Uri, String> {
    let wrong = || format!("{text:?} is not HOST:PORT, such as 127.0.0.1:50052");
    let address = text.strip_prefix("http://").unwrap_or(text);
    let address = address.strip_suffix('/').unwrap_or(address);
    let uri: Uri = format!("http://{address}/").parse().map_err(|_| wrong())?;
    let complete = uri.host().is_some_and(|host| !host.is_empty()) && uri.port_u16().is_some();
    if complete && uri.path() == "/" && uri.query().is_none() {
        Ok(uri)
    } else {
        Err(wrong())
    }
}

fn rule(id: &str) -> Result<&'static Rule, String> {
    check::named(id).ok_or_else(|| format!("there is no rule {id:?}; --list shows them"))
}

fn long(text: &str) -> Result<Duration, &'static str> {
    match duration::parse(text) {
        Some(duration) if !duration.is_zero() => Ok(duration),
        Some(_) => Err("must be longer than nothing"),
        None => Err("a duration needs a unit, such as 10s or 500ms"),
    }
}
