//! The standard `OTEL_*` variables, as far as they are decided about here.

use std::{collections::BTreeMap, fmt::Display, str::FromStr, time::Duration};

use tracing::warn;

/// How long a collector may take for one export, tries and connection included. `OTEL_EXPORTER_OTLP_TIMEOUT` (or
/// `..._TRACES_TIMEOUT`) changes it.
///
/// Shorter than the standard's 10 s, so that a flush within [`super::SHUTDOWN_TIMEOUT`] is not spent on a collector
/// that hangs.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// The `OTEL_*` variables that decide whether, where and how traces go.
///
/// Explicit, so that several processes' worth of telemetry can run in one. What is not decided about here (the sampler,
/// headers, limits per span) the OpenTelemetry SDK itself reads, always from the environment of the process.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

/// Where OTLP goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Collector {
    /// `http://host:port`
    pub(super) endpoint: String,
    /// For one export.
    pub(super) timeout: Duration,
}

impl Environment {
    /// The process's own.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name
                .into_string()
                .ok()
                .filter(|name| name.starts_with("OTEL_"))?;
            Some((name, value.into_string().ok()?))
        });
        Self(variables.collect())
    }

    /// A variable's value; set to nothing means not set, as the standard has it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    }

    /// A positive number.
    pub(super) fn number<T>(&self, name: &str, default: T) -> T
    where
        T: FromStr + Display + Default + PartialOrd,
    {
        let Some(value) = self.get(name) else {
            return default;
        };
        match value.parse() {
            Ok(number) if number > T::default() => number,
            _ => {
                warn!("traces: {name}={value:?} is not a positive number; {default} is used");
                default
            }
        }
    }

    /// A time, which the standard counts in milliseconds.
    pub(super) fn milliseconds(&self, name: &str, default: Duration) -> Duration {
        let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.number(name, default))
    }

    /// `OTEL_SDK_DISABLED=true`: no traces at all.
    pub(super) fn disabled(&self) -> bool {
        self.get("OTEL_SDK_DISABLED")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Where OTLP is asked to go; `None` unless an endpoint (or the exporter `otlp`) is named.
    ///
    /// # Errors
    /// For a person: what is asked for cannot be done.
    pub(super) fn collector(&self) -> Result<Option<Collector>, String> {
        let endpoint = self.otlp("ENDPOINT").map(|(_, endpoint)| endpoint);
        let endpoint = match self.get("OTEL_TRACES_EXPORTER") {
            None => match endpoint {
                None => return Ok(None),
                Some(endpoint) => endpoint,
            },
            Some("none") => return Ok(None),
            Some(exporters)
                if exporters
                    .split(',')
                    .any(|exporter| exporter.trim() == "otlp") =>
            {
                endpoint.unwrap_or("http://localhost:4317")
            }
            Some(exporters) => {
                return Err(format!(
                    "OTEL_TRACES_EXPORTER={exporters:?}: there is only \"otlp\" and \"none\""
                ));
            }
        };
        match self.otlp("PROTOCOL") {
            None | Some((_, "grpc")) => {}
            Some((name, protocol)) => {
                return Err(format!("{name}={protocol:?}: there is only \"grpc\""));
            }
        }
        let timeout = self.otlp("TIMEOUT").map_or(EXPORT_TIMEOUT, |(name, _)| {
            self.milliseconds(&name, EXPORT_TIMEOUT)
        });
        Ok(Some(Collector {
            // The standard would have TLS here, which there is not; `collector:4317` has one meaning left.
            endpoint: match endpoint.contains("://") {
                true => endpoint.to_owned(),
                false => format!("http://{endpoint}"),
            },
            timeout,
        }))
    }

    /// `key=value,...` of `OTEL_RESOURCE_ATTRIBUTES`.
    pub(super) fn resource_attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.get("OTEL_RESOURCE_ATTRIBUTES")
            .unwrap_or_default()
            .split(',')
            .filter_map(|entry| entry.split_once('='))
            .map(|(key, value)| (key.trim(), value.trim()))
    }

    /// The exporter's setting for traces, else the one for all signals; with the variable's name.
    fn otlp(&self, setting: &str) -> Option<(String, &str)> {
        ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"]
            .into_iter()
            .find_map(|prefix| {
                let name = format!("{prefix}{setting}");
                let value = self.get(&name)?;
                Some((name, value))
            })
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Environment {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(variables: I) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self(variables.into_iter().map(owned).collect())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        variables.into_iter().collect()
    }
}

impl Collector {
    /// As log lines name it: without what stands before an `@`.
    pub(super) fn name(&self) -> &str {
        let name = self
            .endpoint
            .split_once("://")
            .map_or(self.endpoint.as_str(), |(_, rest)| rest);
        name.rsplit_once('@').map_or(name, |(_, host)| host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint<const N: usize>(variables: [(&str, &str); N]) -> Result<Option<String>, String> {
        let collector = Environment::from(variables).collector()?;
        Ok(collector.map(|collector| collector.endpoint))
    }

    #[test]
    fn traces_go_nowhere_unless_asked() {
        assert_eq!(endpoint([]), Ok(None));
        assert_eq!(
            endpoint([("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]),
            Ok(None),
            "empty is not set"
        );
        assert_eq!(
            endpoint([("OTEL_TRACES_EXPORTER", "otlp")]),
            Ok(Some("http://localhost:4317".into()))
        );
    }

    #[test]
    fn none_wins_over_an_endpoint() {
        let variables = [
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1"),
        ];
        assert_eq!(endpoint(variables), Ok(None));
    }

    #[test]
    fn the_endpoint_for_traces_wins() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b:2"),
        ];
        assert_eq!(endpoint(variables), Ok(Some("http://b:2".into())));
    }

    #[test]
    fn an_endpoint_needs_no_scheme() {
        assert_eq!(
            endpoint([("OTEL_EXPORTER_OTLP_ENDPOINT", "jaeger:4317")]),
            Ok(Some("http://jaeger:4317".into()))
        );
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let one = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1");
        assert!(endpoint([one, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]).is_err());
        assert!(endpoint([one, ("OTEL_TRACES_EXPORTER", "zipkin")]).is_err());
        assert!(endpoint([one, ("OTEL_TRACES_EXPORTER", "console,otlp")]).is_ok());
    }

    #[test]
    fn a_number_that_is_none_leaves_the_default() {
        let environment = Environment::from([("A", "12"), ("B", "many"), ("C", "0"), ("D", "-1")]);
        assert_eq!(
            ["A", "B", "C", "D", "E"].map(|name| environment.number(name, 7)),
            [12, 7, 7, 7, 7]
        );
    }

    #[test]
    fn a_collector_is_named_without_its_credentials() {
        let name = |endpoint: &str| {
            let collector = Collector {
                endpoint: endpoint.into(),
                timeout: EXPORT_TIMEOUT,
            };
            collector.name().to_owned()
        };
        assert_eq!(name("http://user:secret@a:1"), "a:1");
        assert_eq!(name("http://a:1"), "a:1");
    }
}
