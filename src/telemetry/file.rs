//! Spans to a file: OTLP JSON lines, as the OpenTelemetry Collector's file exporter writes them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

use opentelemetry_proto::{
    tonic::collector::trace::v1::ExportTraceServiceRequest,
    transform::{
        common::tonic::ResourceAttributesWithSchema,
        trace::tonic::group_spans_by_resource_and_scope,
    },
};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SpanData, SpanExporter},
};

/// One `{"resourceSpans":[...]}` a line and export. Several processes may append to one file.
#[derive(Debug)]
pub(super) struct JsonLines {
    lines: Mutex<Lines>,
    resource: ResourceAttributesWithSchema,
}

#[derive(Debug)]
struct Lines {
    file: File,
    /// The file ends in a line that was never finished: a disk was full, a process was killed.
    torn: bool,
}

impl JsonLines {
    /// Opens `path` to append to it, and makes it if missing.
    ///
    /// # Errors
    /// What the system says; also if `path` is something else than a file, such as a pipe that nobody may ever read.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(io::Error::other("not a regular file"));
        }
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(path)?;
        let torn = ends_torn(&mut file)?;
        Ok(Self {
            lines: Mutex::new(Lines { file, torn }),
            resource: ResourceAttributesWithSchema::default(),
        })
    }
}

/// An export as one line, without its end.
pub(super) fn line(
    batch: Vec<SpanData>,
    resource: &ResourceAttributesWithSchema,
) -> io::Result<Vec<u8>> {
    let request = ExportTraceServiceRequest {
        resource_spans: group_spans_by_resource_and_scope(batch, resource),
    };
    Ok(serde_json::to_vec(&request)?)
}

fn ends_torn(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

impl Lines {
    /// Appends a line in a single write, so that the lines of several processes do not mix.
    fn append(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        if self.torn {
            line.insert(0, b'\n');
        }
        line.push(b'\n');
        let written = loop {
            match self.file.write(&line) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.torn = written < line.len() && (written > 0 || self.torn);
        if written < line.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl SpanExporter for JsonLines {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        line(batch, &self.resource)
            .and_then(|line| {
                self.lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .append(line)
            })
            .map_err(|error| OTelSdkError::InternalFailure(error.to_string()))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_never_continues_a_torn_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spans.jsonl");
        fs::write(&path, "{\"torn\":").unwrap();

        let opened = JsonLines::open(&path).unwrap();
        let mut lines = opened.lines.lock().unwrap();
        lines.append(b"{}".to_vec()).unwrap();
        lines.append(b"{}".to_vec()).unwrap();

        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"torn\":\n{}\n{}\n");
    }

    #[test]
    fn only_a_regular_file_is_a_file() {
        let directory = tempfile::tempdir().unwrap();
        assert!(JsonLines::open(directory.path()).is_err(), "a directory");
        assert!(JsonLines::open(Path::new("/dev/null")).is_err(), "a device");
        assert!(
            JsonLines::open(&directory.path().join("no/such")).is_err(),
            "no directory"
        );
    }
}
