//! NATS' client protocol: lines, and payloads whose length a line says.

use anyhow::{Context as _, bail};

use super::{Opening, Role, SUBJECT, Wire, line, number};

pub struct Nats {
    /// The answer to the PING that was sent after all else.
    answered: bool,
}

impl Wire for Nats {
    fn open(opening: &Opening, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
        if opening.role != Role::Publisher {
            out.extend_from_slice(format!("SUB {SUBJECT} 1\r\n").as_bytes());
        }
        out.extend_from_slice(b"PING\r\n");
        Self { answered: false }
    }

    fn is_ready(&self) -> bool {
        self.answered
    }

    fn publish(&mut self, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(format!("PUB {SUBJECT} {}\r\n", text.len()).as_bytes());
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    }

    fn read(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        mut deliver: impl FnMut(usize, &[u8]),
    ) -> anyhow::Result<usize> {
        let mut used = 0;
        while let Some((part, taken)) = Part::read(&input[used..])? {
            used += taken;
            match part {
                Part::Message { payload, .. } => deliver(0, payload),
                Part::Ping => out.extend_from_slice(b"PONG\r\n"),
                Part::Pong => self.answered = true,
                Part::Info => {}
            }
        }
        Ok(used)
    }
}

/// What a server sends.
pub enum Part<'a> {
    Message {
        subject: &'a [u8],
        payload: &'a [u8],
    },
    Info,
    Ping,
    Pong,
}

impl<'a> Part<'a> {
    /// The first part of `input` and how many bytes it takes; none if it is not complete.
    ///
    /// # Errors
    /// The server refuses something, or speaks otherwise.
    pub fn read(input: &'a [u8]) -> anyhow::Result<Option<(Self, usize)>> {
        let Some((line, taken)) = line(input) else {
            return Ok(None);
        };
        if let Some(rest) = line.strip_prefix(b"MSG ") {
            return Self::message(rest, taken, input);
        }
        let part = match line {
            b"PING" => Self::Ping,
            b"PONG" => Self::Pong,
            _ if line.starts_with(b"INFO ") => Self::Info,
            _ => bail!("nats-server says {:?}", String::from_utf8_lossy(line)),
        };
        Ok(Some((part, taken)))
    }

    /// `MSG subject subscription [reply] length`, and as many bytes on the next line.
    fn message(
        rest: &'a [u8],
        begin: usize,
        input: &'a [u8],
    ) -> anyhow::Result<Option<(Self, usize)>> {
        let mut words = rest.split(|byte| *byte == b' ');
        let subject = words.next().unwrap_or_default();
        let length = words.next_back().context("MSG without a length")?;
        let end = begin + number(length)?;
        let all = end + b"\r\n".len();
        if input.len() < all {
            return Ok(None);
        }
        let payload = &input[begin..end];
        Ok(Some((Self::Message { subject, payload }, all)))
    }
}
