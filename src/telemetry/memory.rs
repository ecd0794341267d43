//! Spans kept in memory, for a program that looks at its own.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SpanData, SpanExporter},
};

use super::file;

/// Takes the spans of the [`Telemetry`](super::Telemetry)s that are started with it, as the lines that a file would have.
///
/// For a run that ends: it grows with what is recorded, some 800 bytes a span, and never forgets.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    lines: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    /// What was recorded so far: OTLP JSON lines. Complete when each telemetry has been shut down.
    #[must_use]
    pub fn lines(&self) -> Vec<u8> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn exporter(&self) -> Memory {
        Memory {
            recorder: self.clone(),
            resource: ResourceAttributesWithSchema::default(),
        }
    }
}

/// One process's way into a recorder.
#[derive(Debug)]
pub(super) struct Memory {
    recorder: Recorder,
    resource: ResourceAttributesWithSchema,
}

impl SpanExporter for Memory {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let line = file::line(batch, &self.resource)
            .map_err(|error| OTelSdkError::InternalFailure(error.to_string()))?;
        let lines = &self.recorder.lines;
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.extend_from_slice(&line);
        lines.push(b'\n');
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}
