//! The assignment's requirements as a session with any server that speaks its protocol, in whatever language.
//!
//! Participants of the checker's own join rooms of its own, talk, leave and crash; what they read is judged rule by rule.
//! They do nothing that an ordinary client does for its user: no retry, no sorting, nothing that would hide a fault.
//!
//! # Where to look
//!
//! | module | what lives there |
//! |---|---|
//! | `rule` | what is checked |
//! | `scene` | what is played before the server, and how it is judged; one file per scene |
//! | `stage` | the server, and the names, rooms and texts of a run |
//! | `participant`, `connection` | who plays; a stream and the connection under it |
//! | `event` | what a message is about |
//! | `verdict`, `report` | what came of it, and how it is shown |

mod connection;
mod event;
mod participant;
mod report;
mod rule;
mod scene;
mod stage;
mod verdict;

use std::time::Duration;

use http::Uri;

pub use self::{
    report::{Checked, Report},
    rule::{RULES, Rule, SOURCES, named},
    stage::{NoServer, Path},
    verdict::{Failure, Verdict},
};
use self::{
    scene::Scene,
    stage::Stage,
    verdict::{Book, Stuck},
};

/// What is to be checked.
#[derive(Debug)]
pub struct Plan {
    /// The server: `http://host:port`.
    pub server: Uri,
    /// Under which path; none to find out.
    pub path: Option<Path>,
    /// How long an answer may take.
    pub patience: Duration,
    /// How long it may take until a crash is announced.
    pub crash_patience: Duration,
    /// Which rules.
    pub rules: Vec<&'static Rule>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Rules that are decided.
    pub decided: usize,
    /// Of so many.
    pub of: usize,
    /// What is being played.
    pub scene: &'static str,
}

/// Plays the scenes that the wanted rules need, and tells `progress` of each before it is played.
///
/// # Errors
/// There is no server to be judged. One that goes away later is judged by that.
pub async fn run(plan: &Plan, progress: impl Fn(Step)) -> Result<Report, NoServer> {
    let server = plan.server.clone();
    let stage = Stage::find(server, plan.path, plan.patience, plan.crash_patience).await?;
    let mut checked = Vec::new();
    for scene in Scene::ALL {
        let wanted: Vec<_> = of_scene(&plan.rules, scene).collect();
        if wanted.is_empty() {
            continue;
        }
        progress(Step {
            decided: checked.len(),
            of: plan.rules.len(),
            scene: scene.label(),
        });
        let mut book = Book::default();
        let stuck = scene.play(&stage, &mut book).await.err();
        let undecided = || {
            let reason = stuck.as_ref().map(|Stuck(why)| why.clone());
            let reason = reason.unwrap_or_else(|| "it was not tried".into());
            Verdict::Undecided { reason }
        };
        checked.extend(wanted.into_iter().map(|rule| Checked {
            rule,
            verdict: book.take(rule.id).unwrap_or_else(undecided),
        }));
    }
    Ok(Report {
        server: plan.server.to_string(),
        path: stage.path.method(),
        rooms: stage.rooms(),
        checked,
    })
}

fn of_scene(rules: &[&'static Rule], scene: Scene) -> impl Iterator<Item = &'static Rule> {
    rules
        .iter()
        .copied()
        .filter(move |rule| rule.scene == scene)
}
