//! What a reader that stalls costs the others: nothing, if all is well.

use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{
    lab::{self, Contender, Data, Faults, Lab, Measured, Options},
    load::{Pace, Plan},
    report::{self, Summary, Table, median, milliseconds, ratio, three_digits},
    wire::Role,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Readers that stall: they join first and never let the server send more than a first little (no WINDOW_UPDATE for
    /// their streams), but read their sockets
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    stalled: u32,

    /// They allow everything and do not read their sockets, so that the server's writes get stuck
    #[arg(long)]
    frozen: bool,

    /// Subscribers that keep up
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,

    /// Messages per second
    #[arg(long, default_value = "30", value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,

    /// How often it is measured with and without them
    #[arg(long, default_value = "5")]
    pairs: usize,

    /// How long each measurement takes
    #[arg(long, default_value = "5", value_parser = lab::seconds)]
    seconds: Duration,

    /// Where chitchat keeps its history
    #[arg(long, value_enum, default_value = "memory")]
    data: Data,

    #[command(flatten)]
    options: Options,
}

#[derive(Serialize)]
struct Json<'a> {
    without: &'a [Measured],
    with: &'a [Measured],
    faults: &'a Faults,
}

/// Measures and prints; whether nothing was lost, bad or misordered, and those that should have stalled did.
///
/// # Errors
/// Interrupted, or it cannot begin.
pub fn run(args: &Args, stop: CancellationToken) -> anyhow::Result<bool> {
    let mut lab = Lab::new(&args.options, args.data, stop)?;
    lab.allow_connections((args.subscribers + args.stalled) as usize)?;
    let without = Plan::new(args.subscribers, Pace::Rate(args.rate));
    let with = Plan {
        slow: args.stalled as usize,
        slow_role: match args.frozen {
            true => Role::Frozen,
            false => Role::Stalled,
        },
        ..without.clone()
    };
    let mut sides = [("without", without, Vec::new()), ("with", with, Vec::new())];
    for pair in 0..args.pairs {
        for turn in 0..sides.len() {
            // Nobody always goes first.
            let (name, plan, found) = &mut sides[(pair + turn) % 2];
            let what = format!("pair {pair}, {name} stalled readers,");
            let server = Contender::Chitchat;
            found.push(lab.measure(&what, server, plan, args.seconds, &[])?);
        }
    }
    let [(.., without), (.., with)] = sides;
    let pairs = without.into_iter().zip(with);
    let (without, with): (Vec<_>, Vec<_>) = pairs.filter_map(|(a, b)| a.zip(b)).unzip();
    print(args, &without, &with);
    println!("{}", lab.faults);
    let json = Json {
        without: &without,
        with: &with,
        faults: &lab.faults,
    };
    report::write_json(args.options.json.as_deref(), &json)?;
    Ok(lab.faults.none() && have_stalled(args, &with))
}

fn print(args: &Args, without: &[Measured], with: &[Measured]) {
    println!(
        "{} subscribers that keep up, {} messages/s; medians of {} pairs\n",
        args.subscribers,
        args.rate,
        with.len()
    );
    let mut table = Table::new(&[
        "readers that stall",
        "p50",
        "p99",
        "server CPU, us/delivery",
        "server memory, MB",
    ]);
    for (stalled, found) in [(0, without), (args.stalled, with)] {
        let of = |figure: fn(&Measured) -> f64| median(found.iter().map(figure));
        table.row([
            stalled.to_string(),
            milliseconds(of(|measured| measured.p50_us)),
            milliseconds(of(|measured| measured.p99_us)),
            three_digits(of(|measured| measured.cpu_us_per_delivery)),
            three_digits(of(|measured| measured.resident_bytes as f64 / 1e6)),
        ]);
    }
    table.print();
    let pairs = with.iter().zip(without);
    let ratios = pairs.filter_map(|(with, without)| ratio(with.p99_us, without.p99_us));
    if let Some(summary) = Summary::of(ratios) {
        println!(
            "p99 of the others with by without, same pair: {}",
            summary.words()
        );
    }
    let cut_off = with.iter().map(|measured| measured.cut_off).sum::<usize>();
    println!("stalled readers that the server cut off meanwhile: {cut_off}");
}

/// A measurement in which nobody stalled says nothing.
fn have_stalled(args: &Args, with: &[Measured]) -> bool {
    let stalled = |measured: &Measured| measured.held_back + measured.cut_off;
    let enough = |measured: &Measured| stalled(measured) >= args.stalled as usize;
    let all = with.iter().all(enough);
    if !all {
        println!(
            "NOT ALL STALLED: too little was sent to fill what holds it; more --seconds or --rate"
        );
    }
    all
}
