//! Files of OTLP JSON: a document a line, as `telemetry.file` and the OpenTelemetry Collector's file exporter write them,
//! or documents of many lines.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
};

use super::{
    Progress, Unusable,
    gathering::Gathering,
    otlp::{self, Malformed},
};
use crate::causality::step::Recording;

/// Bytes of one document.
///
/// A document is in memory while it is read. When there are more, the file is refused. Source: 200,000 spans in one
/// answer of a Jaeger (1,450 bytes each) fit; a batch of an exporter has some thousands.
const DOCUMENT_BYTES_MAX: usize = 300_000_000;

/// Bytes that a file is read by.
const BUFFER_BYTES: usize = 1 << 20;

/// Stands for standard input.
const STANDARD_INPUT: &str = "-";

/// Reads all of `files`, of which `-` is standard input, as one recording; tells `watch` now and then how far it is.
///
/// A document that the end of its file, or the beginning of the next document, cuts off in the middle is what a killed
/// process leaves behind: a warning.
///
/// # Errors
/// A file cannot be read, or has something else in it; there are no spans of Chit Chat in them.
pub fn read(
    files: &[PathBuf],
    since: Option<u64>,
    watch: &mut dyn FnMut(Progress),
) -> Result<Recording, Unusable> {
    let mut gathering = Gathering::default();
    let sizes: Vec<Option<u64>> = files.iter().map(|file| size(file)).collect();
    let total: Option<u64> = sizes.iter().copied().sum();
    let mut before = 0;
    gathering.begin_answer();
    for (file, size) in files.iter().zip(sizes) {
        let spans = gathering.spans();
        let mut told = |gathering: &Gathering, bytes: u64| {
            let done = total.map(|total| (before + bytes) as f64 / total.max(1) as f64);
            let spans = gathering.spans();
            watch(Progress { done, spans });
        };
        read_file(file, &mut gathering, &mut told)?;
        before += size.unwrap_or(0);
        if gathering.spans() == spans && files.len() > 1 {
            gathering.warn(format!("{}: no spans", name(file)));
        }
    }
    let names: Vec<String> = files.iter().map(|file| name(file)).collect();
    gathering
        .finish(since)
        .map_err(|words| Unusable::new(&names.join(", "), &words))
}

/// Reads `text`, as if it were a file called `name`.
///
/// # Errors
/// As [`read`].
pub fn read_text(name: &str, text: &[u8]) -> Result<Recording, Unusable> {
    let mut gathering = Gathering::default();
    gathering.begin_answer();
    read_documents(name, text, &mut gathering, &mut |_, _| {})?;
    gathering
        .finish(None)
        .map_err(|words| Unusable::new(name, &words))
}

fn is_standard_input(file: &Path) -> bool {
    file.as_os_str() == STANDARD_INPUT
}

fn name(file: &Path) -> String {
    if is_standard_input(file) {
        "standard input".into()
    } else {
        file.display().to_string()
    }
}

/// The size of a regular file.
fn size(file: &Path) -> Option<u64> {
    let metadata = file.metadata().ok().filter(|_| !is_standard_input(file))?;
    metadata.is_file().then_some(metadata.len())
}

fn read_file(
    file: &Path,
    gathering: &mut Gathering,
    watch: &mut dyn FnMut(&Gathering, u64),
) -> Result<(), Unusable> {
    let name = name(file);
    if is_standard_input(file) {
        let input = BufReader::with_capacity(BUFFER_BYTES, io::stdin().lock());
        return read_documents(&name, input, gathering, watch);
    }
    let opened = File::open(file).map_err(|error| cannot_read(&name, &error))?;
    let input = BufReader::with_capacity(BUFFER_BYTES, opened);
    read_documents(&name, input, gathering, watch)
}

fn read_documents(
    name: &str,
    input: impl BufRead,
    gathering: &mut Gathering,
    watch: &mut dyn FnMut(&Gathering, u64),
) -> Result<(), Unusable> {
    let cannot = |error| cannot_read(name, &error);
    let mut documents = Documents::new(input);
    let mut bytes = 0;
    while let Some((line, document)) = documents.next().map_err(cannot)? {
        bytes += document.len() as u64;
        gathering.come_from(format!("{name}, line {line}"));
        match otlp::read(document, gathering) {
            Err(fault) if fault.cut_off => gathering.warn(cut_off(name, line + fault.line - 1)),
            Err(fault) => return Err(malformed(name, line, &fault)),
            Ok(()) => check_form(name, gathering)?,
        }
        watch(gathering, bytes);
    }
    Ok(())
}

fn cannot_read(name: &str, error: &io::Error) -> Unusable {
    let because = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::IsADirectory => "this is a directory; name the files in it".into(),
        _ => format!("cannot be read: {error}"),
    };
    Unusable::new(name, &because)
}

fn cut_off(name: &str, line: usize) -> String {
    format!(
        "{name}, line {line}: cut off in the middle, as by a process that was killed; its spans are missing"
    )
}

fn malformed(name: &str, first: usize, fault: &Malformed) -> Unusable {
    let line = first + fault.line - 1;
    let origin = format!("{name}, line {line}, column {}", fault.column);
    let words = format!(
        "{}; expected OTLP JSON, as telemetry.file or the OpenTelemetry Collector's file exporter writes it",
        fault.words
    );
    Unusable::new(&origin, &words)
}

/// Whether a document that could be read is one that has no spans, for a reason worth telling.
fn check_form(name: &str, gathering: &Gathering) -> Result<(), Unusable> {
    if let Some(refusal) = &gathering.refusal {
        let words = format!("an answer of Jaeger without spans: {}", refusal.message);
        return Err(Unusable::new(name, &words));
    }
    if gathering.other_form {
        let words = "traces in Jaeger's own form; expected OTLP JSON: name the Jaeger with --jaeger, or save what its /api/v3/traces/{id} answers";
        return Err(Unusable::new(name, words));
    }
    Ok(())
}

/// A text taken apart, one document (or some lines without any) at a time.
///
/// A line that begins with `{` begins a document: each of a file of lines does, and of a document that was made pretty
/// only the first, for the others are indented. So one that was cut off spoils nothing but itself.
struct Documents<R> {
    text: R,
    document: Vec<u8>,
    /// Lines so far.
    lines: usize,
}

impl<R: BufRead> Documents<R> {
    fn new(text: R) -> Self {
        Self {
            text,
            document: Vec::new(),
            lines: 0,
        }
    }

    /// The next document and the line that it begins in, from 1; none at the end.
    fn next(&mut self) -> io::Result<Option<(usize, &[u8])>> {
        self.document.clear();
        let first = self.lines + 1;
        loop {
            let room = (DOCUMENT_BYTES_MAX + 1 - self.document.len()) as u64;
            let mut rest = self.text.by_ref().take(room);
            rest.read_until(b'\n', &mut self.document)?;
            self.lines += 1;
            if self.document.len() > DOCUMENT_BYTES_MAX {
                return Err(io::Error::other(format!(
                    "what begins in line {first} is longer than {DOCUMENT_BYTES_MAX} bytes; expected a document a line (`jq -c .` makes it so)"
                )));
            }
            if matches!(self.peek()?, None | Some(b'{')) {
                // A text that is cut off ends where it does, and not in a line's end within.
                let document = (!self.document.is_empty()).then(|| self.document.trim_ascii_end());
                return Ok(document.map(|document| (first, document)));
            }
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.text.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(|bytes| bytes.first().copied()),
            }
        }
    }
}
