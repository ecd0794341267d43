//! Durations as they are written: with their unit, `5s`, `500ms`, `1m 30s`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de};

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
