//! Traces and logs.
//!
//! One chat event is one trace, `send` → `order` → `deliver`, and each span carries the logical time of its step
//! ([`Tracer`]). Spans go through the OpenTelemetry API to a collector, to a file, or nowhere ([`Telemetry`]); logs go
//! through `tracing`, one line per event, to standard error ([`log`]). Nothing here ever makes chat wait.

pub mod attribute;
mod delivery;
mod environment;
mod file;
mod jaeger;
pub mod log;
mod memory;
mod otlp;
mod resource;
mod trace;
mod traceparent;

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use opentelemetry::{InstrumentationScope, trace::TracerProvider as _};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::warn;

use crate::config;
use delivery::{Delivery, Waiting};
use environment::Collector;
pub use environment::Environment;
use file::JsonLines;
pub use jaeger::{JaegerUi, JaegerUiError};
pub use memory::Recorder;
use otlp::Otlp;
pub(crate) use trace::ATTRIBUTE_BYTES;
pub use trace::{EventName, Facts, Sending, Step, Tracer};
pub use traceparent::trace_id;

/// How long [`Telemetry::shutdown`] may take to deliver what is still queued; what is left then is lost and counted.
///
/// A process has 10 s from SIGTERM to its end (the custom of container runtimes); chat's own drain comes first.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// A process's traces, from start to shutdown. The default does nothing.
#[derive(Debug, Default)]
pub struct Telemetry {
    tracer: Tracer,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    provider: SdkTracerProvider,
    deliveries: Vec<Arc<Delivery>>,
}

impl Telemetry {
    /// Starts tracing, if the environment names a collector or the configuration a file.
    ///
    /// `service` is what the process is called in traces, there in lowercase, unless `OTEL_SERVICE_NAME` says otherwise:
    /// `chitchat-server`, or the participant's name. Never fails: what cannot be had (a bad endpoint, a file that does
    /// not open) is logged in one line and left out. `OTEL_SDK_DISABLED=true` turns everything off,
    /// `OTEL_TRACES_EXPORTER=none` all but the file.
    #[must_use]
    pub fn start(config: &config::Telemetry, service: &str, environment: &Environment) -> Self {
        Self::start_with(config, service, environment, None)
    }

    /// The same, and with a recorder the spans go there as well, whatever the environment says.
    #[must_use]
    pub fn start_with(
        config: &config::Telemetry,
        service: &str,
        environment: &Environment,
        recorder: Option<&Recorder>,
    ) -> Self {
        let (file, collector) = match environment.disabled() {
            true => (None, None),
            false => (
                config.file.as_deref().and_then(open_file),
                open_collector(environment),
            ),
        };
        if file.is_none() && collector.is_none() && recorder.is_none() {
            return Self::default();
        }
        let waiting = Waiting::new(environment);
        let mut provider = SdkTracerProvider::builder();
        let mut deliveries = Vec::new();
        if let Some(recorder) = recorder {
            let (processor, delivery) =
                Delivery::start("memory".into(), recorder.exporter(), waiting);
            provider = provider.with_span_processor(processor);
            deliveries.push(delivery);
        }
        // The file first: it is never slow, and a collector that hangs must not cost it the shutdown's time.
        if let Some((name, exporter)) = file {
            let (processor, delivery) = Delivery::start(name, exporter, waiting);
            provider = provider.with_span_processor(processor);
            deliveries.push(delivery);
        }
        if let Some((name, exporter)) = collector {
            let (processor, delivery) = Delivery::start(name, exporter, waiting);
            provider = provider.with_span_processor(processor);
            deliveries.push(delivery);
        }
        let provider = provider
            .with_resource(resource::resource(service, environment))
            .build();
        let scope = InstrumentationScope::builder("chitchat")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Self {
            tracer: Tracer::new(provider.tracer_with_scope(scope), config),
            running: Some(Running {
                provider,
                deliveries,
            }),
        }
    }

    /// Makes the spans.
    #[must_use]
    pub fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }

    /// Delivers what is queued and stops. Steps that end later leave no span.
    ///
    /// Blocks the thread, at most [`SHUTDOWN_TIMEOUT`], and may be called from anywhere, an async `main` included.
    /// Dropping does the same, so that no way out forgets it.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let Some(Running {
            provider,
            deliveries,
        }) = self.running.take()
        else {
            return;
        };
        // On a thread of its own, because the SDK's limit holds for each destination and not for the sum.
        let (stopped, wait) = mpsc::channel();
        let stopping = thread::Builder::new()
            .name("telemetry-stop".into())
            .spawn(move || {
                let _ = provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT);
                let _ = stopped.send(());
            });
        if stopping.is_ok() {
            let _ = wait.recv_timeout(SHUTDOWN_TIMEOUT);
        }
        for delivery in deliveries {
            delivery.close();
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A destination's name and its exporter.
fn open_file(path: &Path) -> Option<(String, JsonLines)> {
    match JsonLines::open(path) {
        Ok(exporter) => Some((path.display().to_string(), exporter)),
        Err(error) => {
            warn!(
                "traces: telemetry.file {}: {error}; none are written",
                path.display()
            );
            None
        }
    }
}

fn open_collector(environment: &Environment) -> Option<(String, Otlp)> {
    let opened = environment.collector().and_then(|collector| {
        let named =
            |collector: Collector| Ok((collector.name().to_owned(), Otlp::open(&collector)?));
        collector.map(named).transpose()
    });
    opened.unwrap_or_else(|reason| {
        warn!("traces: {reason}; none are sent");
        None
    })
}
