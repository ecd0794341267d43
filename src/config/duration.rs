//! Durations as they are written: with their unit, `5s`, `500ms`, `1m 30s`.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How far a clock is off: ahead, `1500ms`, or behind, `-2s`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offset {
    /// How far.
    pub by: Duration,
    /// Whether it is behind.
    pub behind: bool,
}

impl Offset {
    /// An offset from its text; none if it is not one, or has no unit.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (behind, far) = match text.trim().strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        // "--2s", and "- 2s", which nobody means.
        let is_bare = far.starts_with(|first: char| first.is_ascii_digit());
        let by = is_bare.then(|| parse(far)).flatten()?;
        Some(Self { by, behind })
    }

    /// What a clock that is off by this shows at `time`.
    pub(crate) fn at(self, time: SystemTime) -> SystemTime {
        let shown = match self.behind {
            true => time.checked_sub(self.by),
            false => time.checked_add(self.by),
        };
        shown.unwrap_or(time)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.behind { "-" } else { "" };
        write!(f, "{sign}{}", humantime::format_duration(self.by))
    }
}

impl Serialize for Offset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Offset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("an offset needs a unit"))
    }
}

/// A duration from its text; none if it is not one, or has no unit.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    // The one number that `humantime` takes without a unit is 0.
    let bare = text.trim().parse::<f64>().is_ok();
    (!bare)
        .then(|| humantime::parse_duration(text).ok())
        .flatten()
}

pub(crate) fn serialize<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| de::Error::custom("a duration needs a unit"))
}
