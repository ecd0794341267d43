//! What tracing costs: the same server with it and without it, by turns.
//!
//! Each round measures without, with, and again without. The ratio of the two without says what chance does to the other
//! ratio.

use std::{
    io::{self, Write as _},
    net::Ipv4Addr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::Context as _;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    lab::{self, Contender, Data, Faults, Lab, Measured, Options},
    load::{Pace, Plan},
    report::{self, Summary, Table, median, ratio, three_digits},
    server::Server,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Of the messages, how many are traced
    #[arg(long, value_name = "SHARE", default_value = "0.01")]
    sampled: f64,

    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,

    /// Messages that may be on their way
    #[arg(long, default_value = "16", value_parser = clap::value_parser!(u64).range(1..))]
    window: u64,

    /// How often it is measured with and without
    #[arg(long, default_value = "9")]
    pairs: usize,

    /// How long each measurement takes; the server exports what it has about every second
    #[arg(long, default_value = "3", value_parser = lab::seconds)]
    seconds: Duration,

    /// Where chitchat keeps its history
    #[arg(long, value_enum, default_value = "memory")]
    data: Data,

    #[command(flatten)]
    options: Options,
}

/// The measurements of one round.
#[derive(Serialize)]
struct Round {
    off: Measured,
    on: Measured,
    off_again: Measured,
}

/// One of them.
type Side = fn(&Round) -> &Measured;

#[derive(Serialize)]
struct Json<'a> {
    rounds: &'a [Round],
    spans: u64,
    faults: &'a Faults,
}

/// Measures and prints; whether nothing was lost, bad or misordered, and spans arrived.
///
/// # Errors
/// Interrupted, or it cannot begin.
pub fn run(args: &Args, stop: CancellationToken) -> anyhow::Result<bool> {
    let mut lab = Lab::new(&args.options, args.data, stop)?;
    lab.allow_connections(args.subscribers as usize)?;
    let collector = Server::start("collector", lab.directory(), &lab.stop, |port, _| {
        lab::ourselves("collector", port)
    })?;
    let mut rounds = Vec::new();
    for pair in 0..args.pairs {
        rounds.extend(measure_round(args, &mut lab, pair, &collector)?);
    }
    let spans = last_number(&collector.output());
    print(args, &rounds);
    println!("spans that the collector got: {spans}");
    println!("{}", lab.faults);
    let json = Json {
        rounds: &rounds,
        spans,
        faults: &lab.faults,
    };
    report::write_json(args.options.json.as_deref(), &json)?;
    Ok(lab.faults.none() && spans > 0)
}

/// None if one of the three measurements failed.
fn measure_round(
    args: &Args,
    lab: &mut Lab,
    pair: usize,
    collector: &Server,
) -> anyhow::Result<Option<Round>> {
    let plan = Plan::new(args.subscribers, Pace::Window(args.window));
    let endpoint = format!("http://{}", collector.address);
    let share = args.sampled.to_string();
    let tracing = [
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", share.as_str()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
    ];
    let nothing: &[(&str, &str)] = &[];
    let sides = [("off", nothing), ("on", &tracing), ("off again", nothing)];
    let mut found = [None, None, None];
    for turn in 0..sides.len() {
        // Nobody always goes first.
        let side = (pair + turn) % sides.len();
        let (name, environment) = sides[side];
        let what = format!("pair {pair}, tracing {name},");
        let server = Contender::Chitchat;
        found[side] = lab.measure(&what, server, &plan, args.seconds, environment)?;
    }
    let [Some(off), Some(on), Some(off_again)] = found else {
        return Ok(None);
    };
    Ok(Some(Round { off, on, off_again }))
}

fn print(args: &Args, rounds: &[Round]) {
    println!(
        "{} subscribers, w={}, {} of the messages traced; medians of {} pairs\n",
        args.subscribers,
        args.window,
        args.sampled,
        rounds.len()
    );
    let mut table = Table::new(&[
        "tracing",
        "server CPU, us/delivery",
        "thousand deliveries/s",
    ]);
    let sides: [(&str, Side); 2] = [("off", |round| &round.off), ("on", |round| &round.on)];
    for (name, side) in sides {
        let of = |figure: fn(&Measured) -> f64| {
            three_digits(median(rounds.iter().map(|round| figure(side(round)))))
        };
        table.row([
            name.to_owned(),
            of(|measured| measured.cpu_us_per_delivery),
            of(|measured| measured.deliveries_per_second / 1e3),
        ]);
    }
    table.print();
    let against_off = |side: Side| {
        let pairs = rounds.iter().filter_map(move |round| {
            let cost = |measured: &Measured| measured.cpu_us_per_delivery;
            ratio(cost(side(round)), cost(&round.off))
        });
        Summary::of(pairs).map_or("-".into(), |summary| summary.words())
    };
    println!(
        "CPU per delivery, on by off, same pair: {}",
        against_off(|round| &round.on)
    );
    println!(
        "the same, off by off: {}",
        against_off(|round| &round.off_again)
    );
}

/// Takes spans over OTLP/gRPC and throws them away. Prints how many there were, after each export.
///
/// # Errors
/// The port cannot be listened on.
pub fn collect(port: u16) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let service = TraceServiceServer::new(Collector::default());
    let server = tonic::transport::Server::builder().add_service(service);
    runtime
        .block_on(server.serve((Ipv4Addr::LOCALHOST, port).into()))
        .context("the collector cannot serve")
}

/// How many spans have come.
#[derive(Default)]
struct Collector(AtomicU64);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        let scopes = resources
            .into_iter()
            .flat_map(|resource| resource.scope_spans);
        let spans = scopes.map(|scope| scope.spans.len() as u64).sum();
        let all = self.0.fetch_add(spans, Ordering::Relaxed) + spans;
        // Who started it looks there for the last number; with nobody there is nobody to tell.
        let _ = writeln!(io::stdout(), "{all}");
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// What the collector has printed last; 0 for nothing.
fn last_number(output: &str) -> u64 {
    let last = output.lines().next_back();
    last.and_then(|line| line.parse().ok()).unwrap_or(0)
}
