//! Who watches over a run: whether it goes on, how far it is, and what the processes use meanwhile.

use std::{future::pending, pin::pin, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until},
};

use super::{
    Outcome, Target,
    meter::Meter,
    process::{self, Usage},
    progress::{self, Progress, Stage},
    report::Used,
    turns::{Extent, Window},
};

/// How long nothing may come while something is waited for.
///
/// When it is over the run fails: what it waited for is lost, or the server hangs. Source: a commit takes milliseconds,
/// a disk that is overloaded a second; a scheduled message comes every second at least.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The tasks of a load; each ends with what became of its messages.
pub(super) type Tasks = JoinSet<anyhow::Result<Outcome>>;

/// Why there is nothing more to watch over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// What was waited for is there.
    Done,
    /// All tasks have ended.
    All,
    /// Nothing came any more.
    Silent,
}

/// What two processes used between two moments.
#[derive(Debug)]
pub(super) struct Usages {
    server: Option<(Usage, Usage)>,
    client: Option<(Usage, Usage)>,
}

/// The measured part of a run.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) outcome: Outcome,
    pub(super) usages: Usages,
    pub(super) ended: Ended,
}

/// Waits for `done`, for the end of all tasks, or until nothing has come for so long; shows how far it is.
///
/// # Errors
/// One of the tasks failed.
pub(super) async fn watch(
    tasks: &mut Tasks,
    done: impl Future<Output = ()>,
    patience: Duration,
    meter: &Meter,
    progress: &mut Progress,
    stage: impl Fn() -> Stage,
) -> anyhow::Result<(Outcome, Ended)> {
    let mut done = pin!(done);
    let mut ticks = interval(progress::EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let begin = ticks.tick().await;
    let mut outcome = Outcome::default();
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(ended) => outcome.add(ended.context("a task panicked")??),
                None => return Ok((outcome, Ended::All)),
            },
            () = &mut done => return Ok((outcome, Ended::Done)),
            now = ticks.tick() => {
                progress.show(&stage(), meter.count());
                if meter.silent() > patience && now > begin + patience {
                    return Ok((outcome, Ended::Silent));
                }
            }
        }
    }
}

/// The same for the part of a run that is measured, up to `done`: with what processes use in the window.
///
/// # Errors
/// One of the tasks failed; the server's process is gone.
pub(super) async fn measure(
    tasks: &mut Tasks,
    done: impl Future<Output = ()>,
    meter: &Meter,
    progress: &mut Progress,
    (window, extent): (Window, Extent),
    target: &Target,
) -> anyhow::Result<Measured> {
    let read = || -> anyhow::Result<_> { Ok((server_usage(target)?, own_usage())) };
    let stage = || Stage::measuring(window, extent, meter);
    let mut watching = pin!(watch(tasks, done, PATIENCE, meter, progress, stage));
    let mut before = None;
    let (outcome, ended) = tokio::select! {
        biased;
        watched = &mut watching => watched?,
        () = sleep_until(window.from.into()) => {
            before = Some(read()?);
            watching.await?
        }
    };
    let (server_before, client_before) = before.map_or_else(read, Ok)?;
    let (server, client) = read()?;
    Ok(Measured {
        outcome,
        usages: Usages {
            server: server_before.zip(server),
            client: client_before.zip(client),
        },
        ended,
    })
}

/// Measures a run that is over when all its tasks are.
///
/// # Errors
/// One of them failed, nothing comes back any more, or the server's process is gone.
pub(super) async fn measure_all(
    mut tasks: Tasks,
    meter: &Meter,
    run: (Window, Extent),
    target: &Target,
) -> anyhow::Result<Measured> {
    let mut progress = Progress::new("acknowledged");
    let measured = measure(&mut tasks, pending(), meter, &mut progress, run, target).await?;
    if measured.ended == Ended::Silent {
        bail!("the server has acknowledged nothing for {PATIENCE:?}");
    }
    Ok(measured)
}

impl Usages {
    /// What the server used for so many of `what`, if its process is known.
    pub(super) fn server(&self, count: u64, what: &'static str) -> Option<Used> {
        self.server
            .map(|between| Used::between(between, count, what))
    }

    /// What this program used, where the system tells.
    pub(super) fn client(&self, count: u64, what: &'static str) -> Option<Used> {
        self.client
            .map(|between| Used::between(between, count, what))
    }
}

/// What the server has used, if its process is known.
///
/// # Errors
/// There is no such process.
pub(super) fn server_usage(target: &Target) -> anyhow::Result<Option<Usage>> {
    let usage = |pid| process::usage(pid).with_context(|| format!("cannot measure process {pid}"));
    target.pid.map(usage).transpose()
}

/// What this program has used, where the system tells.
fn own_usage() -> Option<Usage> {
    process::usage(std::process::id()).ok()
}
