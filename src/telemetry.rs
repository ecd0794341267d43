//! Traces and logs.
//!
//! One chat event is one trace, `send` → `order` → `deliver`, and each span carries the logical time of its step
//! ([`Tracer`]). Spans go through the OpenTelemetry API to a collector, to a file, or nowhere ([`Telemetry`]); logs go
//! through `tracing`, one line per event, to standard error ([`log`]). Nothing here ever makes chat wait.

pub mod attribute;
mod delivery;
mod environment;
mod file;
pub mod log;
mod otlp;
mod resource;
mod trace;
mod traceparent;

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use opentelemetry::{InstrumentationScope, trace::TracerProvider as _};
use opentelemetry_sdk::trace::{SdkTracerProvider, TracerProviderBuilder};
use tokio::runtime::Runtime;
use tracing::warn;

use crate::config;
use delivery::Delivery;
pub use environment::Environment;
pub use trace::{EventName, Facts, Sending, Step, Tracer};

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
    /// Of the OTLP exporter.
    runtime: Option<Runtime>,
}

impl Telemetry {
    /// Starts tracing, if the environment names a collector or the configuration a file.
    ///
    /// `service` is what the process is called in traces unless `OTEL_SERVICE_NAME` says otherwise: `chitchat-server`,
    /// or a participant's name in lowercase. Never fails: what cannot be had (a bad endpoint, a file that does not open)
    /// is logged in one line and left out. `OTEL_SDK_DISABLED=true` turns everything off, `OTEL_TRACES_EXPORTER=none`
    /// all but the file.
    #[must_use]
    pub fn start(config: &config::Telemetry, service: &str, environment: &Environment) -> Self {
        if environment.disabled() {
            return Self::default();
        }
        let mut deliveries = Vec::new();
        let mut provider = SdkTracerProvider::builder();
        // The file first: it is never slow, and a collector that hangs must not cost it the shutdown's time.
        provider = with_file(provider, &mut deliveries, config, environment);
        let runtime;
        (provider, runtime) = with_collector(provider, &mut deliveries, environment);
        if deliveries.is_empty() {
            return Self::default();
        }
        let provider = provider
            .with_resource(resource::resource(service, environment))
            .build();
        let scope = InstrumentationScope::builder("chitchat")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Self {
            tracer: Tracer::new(provider.tracer_with_scope(scope), config.text),
            running: Some(Running {
                provider,
                deliveries,
                runtime,
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
            runtime,
        }) = self.running.take()
        else {
            return;
        };
        // On a thread of its own, because the SDK's limit holds for each destination and not for the sum. The provider
        // goes before the runtime: after it, every export would fail.
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
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn with_file(
    provider: TracerProviderBuilder,
    deliveries: &mut Vec<Arc<Delivery>>,
    config: &config::Telemetry,
    environment: &Environment,
) -> TracerProviderBuilder {
    let Some(path) = &config.file else {
        return provider;
    };
    match file::JsonLines::open(path) {
        Ok(exporter) => {
            let (processor, delivery) =
                Delivery::start(path.display().to_string(), exporter, environment);
            deliveries.push(delivery);
            provider.with_span_processor(processor)
        }
        Err(error) => {
            warn!(
                "traces: telemetry.file {}: {error}; none are written",
                path.display()
            );
            provider
        }
    }
}

fn with_collector(
    provider: TracerProviderBuilder,
    deliveries: &mut Vec<Arc<Delivery>>,
    environment: &Environment,
) -> (TracerProviderBuilder, Option<Runtime>) {
    match open_collector(environment) {
        Ok(None) => (provider, None),
        Ok(Some((name, exporter, runtime))) => {
            let (processor, delivery) = Delivery::start(name, exporter, environment);
            deliveries.push(delivery);
            (provider.with_span_processor(processor), Some(runtime))
        }
        Err(reason) => {
            warn!("traces: {reason}; none are sent");
            (provider, None)
        }
    }
}

fn open_collector(
    environment: &Environment,
) -> Result<Option<(String, otlp::Otlp, Runtime)>, String> {
    let Some(collector) = environment.collector()? else {
        return Ok(None);
    };
    let runtime = otlp::runtime().map_err(|error| error.to_string())?;
    let exporter = otlp::Otlp::new(&collector, &runtime).map_err(|error| error.to_string());
    match exporter {
        Ok(exporter) => Ok(Some((collector.name().to_owned(), exporter, runtime))),
        Err(reason) => {
            // Dropping a runtime inside another one panics.
            runtime.shutdown_background();
            Err(reason)
        }
    }
}
