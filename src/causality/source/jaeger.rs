//! The traces that a Jaeger keeps, over its `/api/v3`.
//!
//! One answer has a limited number of traces and does not say that there are more. So it is asked window by window, from
//! the newest back: a window that comes back full is asked again at half its width at most, one that comes back with
//! little is followed by a wider one. A trace comes whole with each window in which one of its spans begins, and is kept once.

use std::{
    cmp::Reverse,
    ops::RangeInclusive,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{
    Progress, Unusable,
    gathering::Gathering,
    http::{Address, Answer, Bounds, Failure},
    otlp,
};
use crate::causality::step::Recording;

/// The first window, from now back. Source: a run that somebody looks at has just been.
const FIRST_WIDTH: u64 = 60 * SECOND;

/// How far ahead of this machine's clock others may be.
const AHEAD: u64 = 24 * 60 * 60 * SECOND;

/// Nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// How much wider the next window may be.
const WIDER_MAX: u64 = 8;

/// Traces that an answer must at least have room for.
///
/// When answers are too large even so, reading fails: a trace has tens of thousands of spans then, and a file is the
/// better way.
const TRACES_MIN: usize = 8;

/// What is asked of a Jaeger at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Traces of one answer; of a window that has as many, there may be more. A Jaeger that does not allow so many is asked for fewer.
    pub traces: usize,
    /// Bytes of one answer. When it has more, it is asked for fewer traces.
    pub bytes: usize,
    /// How long one answer may take. When it takes longer, reading fails.
    pub patience: Duration,
}

impl Default for Limits {
    /// 1,000 traces are 7 MB and 0.4 s in a room of three (measured with Jaeger 2.20); 128 MB are a room of ninety.
    fn default() -> Self {
        Self {
            traces: 1000,
            bytes: 128 << 20,
            patience: Duration::from_secs(60),
        }
    }
}

/// A Jaeger.
#[derive(Debug)]
pub struct Jaeger {
    url: String,
    address: Address,
    limits: Limits,
}

impl Jaeger {
    /// The Jaeger whose UI is at `url`: `http://localhost:16686`, with a path behind it if it has one.
    ///
    /// # Errors
    /// This is no such address.
    pub fn at(url: &str) -> Result<Self, Unusable> {
        Ok(Self {
            url: url.to_owned(),
            address: Address::parse(url).map_err(|words| Unusable::new(url, &words))?,
            limits: Limits::default(),
        })
    }

    /// With other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Reads every trace that has a span of ours beginning at `since` (nanoseconds since 1970) or later; without it, every
    /// trace. Tells `watch` after each answer how far it is.
    ///
    /// # Errors
    /// It cannot be reached, is no Jaeger, or refuses; it has no spans of ours.
    pub async fn read(
        &self,
        since: Option<u64>,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<Recording, Unusable> {
        let services = self.services().await?;
        let mut reading = Reading {
            jaeger: self,
            gathering: Gathering::default(),
            traces: self.limits.traces,
            since,
            now: nanoseconds(SystemTime::now()),
            watch,
        };
        if let Walked::NeedsService = reading.walk(None).await? {
            for service in &services {
                reading.walk(Some(service)).await?;
            }
        }
        reading.gathering.finish(since).map_err(|words| {
            let there = match services.len() {
                0 => "it has no traces at all".to_owned(),
                _ => format!("it has traces of {}", services.join(", ")),
            };
            let asked = since.map_or(String::new(), |since| format!(" since {}", time(since)));
            self.unusable(format!("{words}{asked}; {there}"))
        })
    }

    async fn services(&self) -> Result<Vec<String>, Unusable> {
        #[derive(Deserialize)]
        struct Services {
            services: Vec<String>,
        }
        let answer = self.get("/api/v3/services").await;
        let answer = answer.map_err(|failure| self.no_answer(failure))?;
        if answer.status != StatusCode::OK {
            return Err(self.refused(&answer));
        }
        let services: Services = serde_json::from_slice(&answer.body)
            .map_err(|_| self.unusable(format!("its answer is not Jaeger's. {}", IS_IT_JAEGER)))?;
        Ok(services.services)
    }

    async fn get(&self, path: &str) -> Result<Answer, Failure> {
        let Limits {
            bytes, patience, ..
        } = self.limits;
        self.address.get(path, Bounds { bytes, patience }).await
    }

    fn unusable(&self, words: impl AsRef<str>) -> Unusable {
        Unusable::new(&self.url, words.as_ref())
    }

    fn no_answer(&self, failure: Failure) -> Unusable {
        self.unusable(match failure {
            Failure::TooLarge => TOO_LARGE.to_owned(),
            Failure::Broken(words) => format!("{words}. {IS_IT_JAEGER}"),
        })
    }

    /// An answer that is neither traces nor that there are none.
    fn refused(&self, answer: &Answer) -> Unusable {
        let status = answer.status;
        let location = answer.headers.get(header::LOCATION);
        self.unusable(match (message(answer), location) {
            (Some(message), _) => format!("Jaeger refuses: {message} ({})", status.as_u16()),
            (None, Some(location)) if status.is_redirection() => format!(
                "redirects to {}; give the address that it is really at",
                String::from_utf8_lossy(location.as_bytes())
            ),
            (None, _) if matches!(status.as_u16(), 401 | 403) => {
                format!("wants a login ({status}), which is not supported; forward a port to Jaeger itself")
            }
            (None, _) => format!("answers {status}. {IS_IT_JAEGER}"),
        })
    }
}

/// What is usually wrong.
const IS_IT_JAEGER: &str =
    "Is --jaeger the address of Jaeger's UI, such as http://localhost:16686, and Jaeger 2?";

/// What to do about answers beyond [`Limits::bytes`].
const TOO_LARGE: &str = "its answers are too large, even for a few traces; let the programs write their spans to a file (telemetry.file), and name that with --spans";

/// What became of a way through all windows.
enum Walked {
    ToTheEnd,
    /// The store does not search over all services at once.
    NeedsService,
}

/// What became of one window.
enum Searched {
    /// It has so many traces, all of them, or as many as were asked for.
    Found(usize),
    /// So many traces cannot be asked for.
    TooMany,
    /// The answer is too large.
    TooLarge,
    NeedsService,
}

struct Reading<'a> {
    jaeger: &'a Jaeger,
    gathering: Gathering,
    /// How many traces are asked for.
    traces: usize,
    since: Option<u64>,
    now: u64,
    watch: &'a mut dyn FnMut(Progress),
}

impl Reading<'_> {
    async fn walk(&mut self, service: Option<&str>) -> Result<Walked, Unusable> {
        let oldest = self.since.unwrap_or(0);
        let mut end = self.now + AHEAD;
        let mut width = AHEAD;
        while end > oldest {
            // What is ahead of this machine's clock is a window of its own, usually empty.
            let begin = if end > self.now { self.now } else { 0 };
            let start = end.saturating_sub(width).max(begin).max(oldest);
            let found = match self.search(service, start..=end).await? {
                Searched::NeedsService => return Ok(Walked::NeedsService),
                Searched::TooMany => {
                    self.ask_for_fewer(2, "keeps too few traces to be asked (max_traces)")?;
                    continue;
                }
                Searched::TooLarge => {
                    self.ask_for_fewer(4, TOO_LARGE)?;
                    continue;
                }
                Searched::Found(traces) => traces,
            };
            if found >= self.traces {
                if end - start > 1 {
                    width = self.narrower(start, end);
                    continue;
                }
                self.warn_of_full(start);
            }
            end = start;
            width = if end == self.now {
                FIRST_WIDTH
            } else {
                width.saturating_mul(self.wider(found))
            };
            self.tell(end);
        }
        Ok(Walked::ToTheEnd)
    }

    /// How wide a window that ends where the full one did may be, so as not to come back full: half of it, or less.
    ///
    /// Storages give the newest traces of a window, so these tell how far back what fits reaches. (If one does not, it is
    /// asked more often.)
    fn narrower(&self, start: u64, end: u64) -> u64 {
        let mut latest: Vec<u64> = self.gathering.latest_in_answer().collect();
        latest.sort_unstable_by_key(|latest| Reverse(*latest));
        let fits = end.saturating_sub(latest[latest.len() * 7 / 10]);
        let half = (end - start) / 2;
        if (1..half).contains(&fits) {
            fits
        } else {
            half
        }
    }

    /// How much wider a window may be after one with so many traces, so as not to come back full.
    fn wider(&self, found: usize) -> u64 {
        let wider = self.traces * 7 / 10 / found.max(1);
        (wider as u64).clamp(1, WIDER_MAX)
    }

    fn warn_of_full(&mut self, nanosecond: u64) {
        self.gathering.warn(format!(
            "{}: {} traces begin in the nanosecond of {}, and maybe more, which are missing then",
            self.jaeger.url,
            self.traces,
            time(nanosecond)
        ));
    }

    fn ask_for_fewer(&mut self, part: usize, otherwise: &str) -> Result<(), Unusable> {
        self.traces /= part;
        if self.traces < TRACES_MIN {
            return Err(self.jaeger.unusable(otherwise));
        }
        Ok(())
    }

    fn tell(&mut self, reached: u64) {
        let part = |since| {
            let (read, all) = (
                self.now.saturating_sub(reached),
                self.now.saturating_sub(since),
            );
            read as f64 / all.max(1) as f64
        };
        (self.watch)(Progress {
            done: self.since.map(part),
            spans: self.gathering.spans(),
        });
    }

    async fn search(
        &mut self,
        service: Option<&str>,
        window: RangeInclusive<u64>,
    ) -> Result<Searched, Unusable> {
        let answer = match self.jaeger.get(&self.question(service, &window)).await {
            Err(Failure::TooLarge) => return Ok(Searched::TooLarge),
            answer => answer.map_err(|failure| self.jaeger.no_answer(failure))?,
        };
        let refusal =
            (answer.status != StatusCode::OK).then(|| message(&answer).unwrap_or_default());
        match refusal.map(|message| message.to_lowercase()) {
            None => self.take(&answer),
            Some(message) if answer.status == StatusCode::NOT_FOUND && !message.is_empty() => {
                Ok(Searched::Found(0))
            }
            Some(message) if message.contains("search depth") => Ok(Searched::TooMany),
            Some(message) if service.is_none() && message.contains("service") => {
                Ok(Searched::NeedsService)
            }
            Some(_) => Err(self.jaeger.refused(&answer)),
        }
    }

    /// The path and the query for what begins in `window`.
    fn question(&self, service: Option<&str>, window: &RangeInclusive<u64>) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut question = format!(
            "/api/v3/traces?query.startTimeMin={}&query.startTimeMax={}&query.searchDepth={}&query.attributes={}",
            encoded(&time(*window.start())),
            encoded(&time(*window.end())),
            self.traces,
            encoded(r#"{"messaging.system":"chitchat"}"#),
        );
        if let Some(service) = service {
            question.push_str("&query.serviceName=");
            question.push_str(&encoded(service));
        }
        question
    }

    fn take(&mut self, answer: &Answer) -> Result<Searched, Unusable> {
        self.gathering.begin_answer();
        self.gathering.come_from(self.jaeger.url.clone());
        otlp::read(&answer.body, &mut self.gathering).map_err(|fault| {
            let words = if fault.cut_off {
                "an answer that ends in the middle".into()
            } else {
                let otlp::Malformed {
                    line,
                    column,
                    words,
                    ..
                } = fault;
                format!("an answer that is not OTLP JSON: {words} (line {line}, column {column})")
            };
            self.jaeger.unusable(format!("{words}. {IS_IT_JAEGER}"))
        })?;
        if let Some(refusal) = self.gathering.refusal.take() {
            return Err(self
                .jaeger
                .unusable(format!("Jaeger refuses: {}", refusal.message)));
        }
        Ok(Searched::Found(self.gathering.traces_in_answer()))
    }
}

/// Why Jaeger refuses, in its words; none where this is not Jaeger's answer.
fn message(answer: &Answer) -> Option<String> {
    #[derive(Deserialize)]
    struct Refused {
        error: otlp::Refusal,
    }
    let refused: Refused = serde_json::from_slice(&answer.body).ok()?;
    Some(refused.error.message)
}

fn time(nanoseconds: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_nanos(nanoseconds);
    humantime::format_rfc3339_nanos(time).to_string()
}

/// Since 1970; 0 before that.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().try_into().unwrap_or(u64::MAX)
}
