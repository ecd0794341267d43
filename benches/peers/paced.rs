//! How late messages are at a fixed rate, beside the peers.

use std::{str::FromStr, time::Duration};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{
    lab::{self, Contender, Data, Faults, Lab, Measured, Options},
    load::{Pace, Plan},
    report::{self, Table, median, milliseconds, three_digits},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Subscribers and messages per second
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "SUBSCRIBERSxRATE",
        default_value = "10x1000,100x300,1000x30"
    )]
    paced: Vec<Paced>,

    /// How often all of it is measured
    #[arg(long, default_value = "3")]
    rounds: usize,

    /// How long each measurement takes
    #[arg(long, default_value = "4", value_parser = lab::seconds)]
    seconds: Duration,

    /// Beside whom
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "raw,nats,redis"
    )]
    peers: Vec<Contender>,

    /// Where chitchat keeps its history
    #[arg(long, value_enum, default_value = "memory")]
    data: Data,

    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Paced {
    subscribers: u32,
    rate: u32,
}

impl FromStr for Paced {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('x').and_then(|(subscribers, rate)| {
            Some(Self {
                subscribers: subscribers.parse().ok()?,
                rate: rate.parse().ok()?,
            })
        });
        parsed
            .filter(|paced| paced.subscribers > 0 && paced.rate > 0)
            .ok_or("subscribers, an x, and messages per second: 100x300")
    }
}

/// One measurement, and what it was of.
#[derive(Debug, Serialize)]
struct Record {
    round: usize,
    server: Contender,
    #[serde(flatten)]
    paced: Paced,
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
    let most = args.paced.iter().map(|paced| paced.subscribers).max();
    lab.allow_connections(most.unwrap_or(0) as usize)?;
    let mut servers = lab.installed(&args.peers);
    servers.push(Contender::Chitchat);
    let mut records = Vec::new();
    for round in 0..args.rounds {
        for &paced in &args.paced {
            let Paced { subscribers, rate } = paced;
            for &server in &servers {
                let plan = Plan::new(subscribers, Pace::Rate(rate));
                let what = format!("round {round}, {subscribers} subscribers, {rate} messages/s,");
                let measured = lab.measure(&what, server, &plan, args.seconds, &[])?;
                records.extend(measured.map(|measured| Record {
                    round,
                    server,
                    paced,
                    measured,
                }));
            }
            // Nobody always goes first.
            servers.rotate_left(1);
        }
    }
    servers.sort_unstable();
    print_table(args, &servers, &records);
    println!("{}", lab.faults);
    let json = Json {
        records: &records,
        faults: &lab.faults,
    };
    report::write_json(args.options.json.as_deref(), &json)?;
    Ok(lab.faults.none())
}

fn print_table(args: &Args, servers: &[Contender], records: &[Record]) {
    let mut table = Table::new(&[
        "server",
        "subscribers",
        "messages/s",
        "p50",
        "p99",
        "server CPU, us/delivery",
    ]);
    for &paced in &args.paced {
        for &server in servers {
            let of = |figure: fn(&Measured) -> f64| {
                let found = records
                    .iter()
                    .filter(|record| (record.server, record.paced) == (server, paced));
                median(found.map(|record| figure(&record.measured)))
            };
            table.row([
                server.to_string(),
                paced.subscribers.to_string(),
                paced.rate.to_string(),
                milliseconds(of(|measured| measured.p50_us)),
                milliseconds(of(|measured| measured.p99_us)),
                three_digits(of(|measured| measured.cpu_us_per_delivery)),
            ]);
        }
    }
    table.print();
}
