//! What bringing a message to many costs, beside the peers; and how the cost grows with the number of subscribers.

use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{
    lab::{self, Contender, Data, Faults, Lab, Measured, Options},
    load::{Pace, Plan},
    report::{self, Summary, Table, median, milliseconds, ratio, three_digits},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Subscribers, each with a connection of its own
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000", value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: Vec<u32>,

    /// Messages that may be on their way: 1 makes each delivery a write of its own, many let servers write many at once
    #[arg(long, value_delimiter = ',', default_value = "1,16,256", value_parser = clap::value_parser!(u64).range(1..))]
    windows: Vec<u64>,

    /// How often all of it is measured
    #[arg(long, default_value = "3")]
    rounds: usize,

    /// How long each measurement takes
    #[arg(long, default_value = "2", value_parser = lab::seconds)]
    seconds: Duration,

    /// Beside whom
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "raw,nats,redis"
    )]
    peers: Vec<Contender>,

    /// How many of chitchat's subscribers share a connection; a server allows 16
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=16))]
    streams_per_connection: u32,

    /// Where chitchat keeps its history
    #[arg(long, value_enum, default_value = "memory")]
    data: Data,

    #[command(flatten)]
    options: Options,
}

/// One measurement, and what it was of.
#[derive(Debug, Serialize)]
struct Record {
    round: usize,
    server: Contender,
    subscribers: u32,
    window: u64,
    #[serde(flatten)]
    measured: Measured,
}

#[derive(Serialize)]
struct Json<'a> {
    records: &'a [Record],
    faults: &'a Faults,
}

/// Measures and prints; whether nothing was lost, bad or misordered.
///
/// # Errors
/// Interrupted, or it cannot begin.
pub fn run(args: &Args, stop: CancellationToken) -> anyhow::Result<bool> {
    let mut lab = Lab::new(&args.options, args.data, stop)?;
    let most = args.subscribers.iter().max().copied().unwrap_or(0);
    lab.allow_connections(most as usize)?;
    let mut servers = lab.installed(&args.peers);
    servers.push(Contender::Chitchat);
    let mut records = Vec::new();
    for round in 0..args.rounds {
        for &subscribers in &args.subscribers {
            for &window in &args.windows {
                for &server in &servers {
                    let plan = plan(args, server, subscribers, window);
                    let what = format!("round {round}, {subscribers} subscribers, w={window},");
                    let measured = lab.measure(&what, server, &plan, args.seconds, &[])?;
                    records.extend(measured.map(|measured| Record {
                        round,
                        server,
                        subscribers,
                        window,
                        measured,
                    }));
                }
                // Nobody always goes first.
                servers.rotate_left(1);
            }
        }
    }
    servers.sort_unstable();
    print_table(args, &servers, &records);
    print_ratios(args, &servers, &records);
    print_growth(args, &servers, &records);
    println!("{}", lab.faults);
    let json = Json {
        records: &records,
        faults: &lab.faults,
    };
    report::write_json(args.options.json.as_deref(), &json)?;
    Ok(lab.faults.none())
}

fn plan(args: &Args, server: Contender, subscribers: u32, window: u64) -> Plan {
    let mut plan = Plan::new(subscribers, Pace::Window(window));
    if server == Contender::Chitchat {
        plan.streams_per_connection = args.streams_per_connection as usize;
    }
    plan
}

fn print_table(args: &Args, servers: &[Contender], records: &[Record]) {
    let mut table = Table::new(&[
        "server",
        "subscribers",
        "w",
        "server CPU, us/delivery",
        "thousand deliveries/s",
        "p99",
    ]);
    for &window in &args.windows {
        for &subscribers in &args.subscribers {
            for &server in servers {
                let of = |figure: fn(&Measured) -> f64| {
                    let found = records.iter().filter(|record| {
                        (record.server, record.subscribers, record.window)
                            == (server, subscribers, window)
                    });
                    median(found.map(|record| figure(&record.measured)))
                };
                table.row([
                    server.to_string(),
                    subscribers.to_string(),
                    window.to_string(),
                    three_digits(of(|measured| measured.cpu_us_per_delivery)),
                    three_digits(of(|measured| measured.deliveries_per_second / 1e3)),
                    milliseconds(of(|measured| measured.p99_us)),
                ]);
            }
        }
    }
    table.print();
}

/// chitchat's cost by a peer's in the same round, over all numbers of subscribers.
fn print_ratios(args: &Args, servers: &[Contender], records: &[Record]) {
    for &window in &args.windows {
        for &peer in servers.iter().filter(|it| **it != Contender::Chitchat) {
            let ratios = args.subscribers.iter().flat_map(|&subscribers| {
                (0..args.rounds).filter_map(move |round| {
                    let cost = |server| cost(records, round, server, subscribers, window);
                    ratio(cost(Contender::Chitchat)?, cost(peer)?)
                })
            });
            if let Some(summary) = Summary::of(ratios) {
                println!(
                    "w={window}: chitchat's CPU per delivery by {peer}'s, same round: {}",
                    summary.words()
                );
            }
        }
    }
    println!();
}

/// How a cost grows from the fewest to the most subscribers: chitchat's growth by the plain broadcaster's, same round.
fn print_growth(args: &Args, servers: &[Contender], records: &[Record]) {
    let (Some(&few), Some(&many)) = (args.subscribers.iter().min(), args.subscribers.iter().max())
    else {
        return;
    };
    if few == many || !servers.contains(&Contender::Raw) {
        return;
    }
    for &window in &args.windows {
        let growth = |round, server| {
            let cost = |subscribers| cost(records, round, server, subscribers, window);
            ratio(cost(many)?, cost(few)?)
        };
        let rounds = 0..args.rounds;
        let pairs: Vec<_> = rounds
            .filter_map(|round| {
                let pair = (
                    growth(round, Contender::Chitchat)?,
                    growth(round, Contender::Raw)?,
                );
                Some(pair)
            })
            .collect();
        if let Some(summary) = Summary::of(pairs.iter().map(|(ours, raw)| ours / raw)) {
            println!(
                "w={window}: from {few} to {many} subscribers a delivery's CPU grows {:.2} times at chitchat, {:.2} times \
                 at raw; one by the other, same round: {}",
                median(pairs.iter().map(|(ours, _)| *ours)),
                median(pairs.iter().map(|(_, raw)| *raw)),
                summary.words()
            );
        }
    }
    println!();
}

/// Server CPU per delivery.
fn cost(
    records: &[Record],
    round: usize,
    server: Contender,
    subscribers: u32,
    window: u64,
) -> Option<f64> {
    let found = records.iter().find(|record| {
        (
            record.round,
            record.server,
            record.subscribers,
            record.window,
        ) == (round, server, subscribers, window)
    });
    found.map(|record| record.measured.cpu_us_per_delivery)
}
