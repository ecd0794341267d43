//! Spans to a collector: OTLP over gRPC.

use std::{sync::Arc, time::Duration};

use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SpanData, SpanExporter},
};
use tokio::runtime::{Builder, Runtime};

use super::environment::Collector;

/// The SDK's exporter, with an end to every wait.
#[derive(Debug)]
pub(super) struct Otlp {
    exporter: Arc<opentelemetry_otlp::SpanExporter>,
    /// Where the connection lives. Its own, because the thread that waits for an export must never be one that the
    /// export needs: on a runtime shared with the program, a flush from `main` would wait for itself. It ends with the
    /// thread that exports, which is in no runtime.
    runtime: Runtime,
    timeout: Duration,
}

impl Otlp {
    /// Connects at the first export, not yet.
    ///
    /// # Errors
    /// For a person: why there cannot be a connection.
    pub(super) fn open(collector: &Collector) -> Result<Self, String> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("telemetry")
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let exporter = {
            let _context = runtime.enter();
            opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_endpoint(&collector.endpoint)
                .with_timeout(collector.timeout)
                .build()
        };
        match exporter {
            Ok(exporter) => Ok(Self {
                exporter: Arc::new(exporter),
                runtime,
                timeout: collector.timeout,
            }),
            Err(error) => {
                // Dropped, it would panic inside another runtime.
                runtime.shutdown_background();
                Err(error.to_string())
            }
        }
    }
}

impl SpanExporter for Otlp {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (exporter, timeout) = (Arc::clone(&self.exporter), self.timeout);
        // The SDK bounds an answer and the number of tries, but neither the wait for a connection nor the sum.
        let export = self
            .runtime
            .spawn(async move { tokio::time::timeout(timeout, exporter.export(batch)).await });
        match export.await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(OTelSdkError::Timeout(timeout)),
            Err(error) => Err(OTelSdkError::InternalFailure(error.to_string())),
        }
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Nobody else holds it: the SDK says this before the first export.
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}
