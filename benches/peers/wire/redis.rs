//! Redis' protocol (RESP2), as far as PUB/SUB has it.

use anyhow::{Context as _, bail};

use super::{Opening, Role, SUBJECT, Wire, line, number};

/// A reply's strings: kind, channel, text. Empty where there is none, or a number.
type Strings<'a> = [&'a [u8]; 3];

pub struct Redis {
    /// The first answer has come.
    answered: bool,
}

impl Wire for Redis {
    fn open(opening: &Opening, out: &mut Vec<u8>) -> Self {
        match opening.role {
            Role::Publisher => command(&[b"PING"], out),
            Role::Subscriber | Role::Stalled | Role::Frozen => {
                command(&[b"SUBSCRIBE", SUBJECT.as_bytes()], out);
            }
        }
        Self { answered: false }
    }

    fn is_ready(&self) -> bool {
        self.answered
    }

    fn publish(&mut self, text: &[u8], out: &mut Vec<u8>) {
        command(&[b"PUBLISH", SUBJECT.as_bytes(), text], out);
    }

    fn read(
        &mut self,
        input: &[u8],
        _: &mut Vec<u8>,
        mut deliver: impl FnMut(usize, &[u8]),
    ) -> anyhow::Result<usize> {
        let mut used = 0;
        while let Some((reply, taken)) = reply(&input[used..])? {
            used += taken;
            match reply {
                [b"message", _, text] => deliver(0, text),
                _ => self.answered = true,
            }
        }
        Ok(used)
    }
}

fn command(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// A reply and how many bytes it takes; none if it is not complete.
fn reply(input: &[u8]) -> anyhow::Result<Option<(Strings<'_>, usize)>> {
    let mut strings: Strings<'_> = [b""; 3];
    let Some((head, mut used)) = line(input) else {
        return Ok(None);
    };
    let Some(elements) = head.strip_prefix(b"*") else {
        simple(head)?;
        return Ok(Some((strings, used)));
    };
    let elements = number(elements)?;
    let strings_read = strings
        .get_mut(..elements)
        .with_context(|| format!("redis-server sent an array of {elements}"))?;
    for string in strings_read {
        let Some((head, taken)) = line(&input[used..]) else {
            return Ok(None);
        };
        used += taken;
        let Some(length) = head.strip_prefix(b"$") else {
            simple(head)?;
            continue;
        };
        let end = used + number(length)?;
        let all = end + b"\r\n".len();
        if input.len() < all {
            return Ok(None);
        }
        *string = &input[used..end];
        used = all;
    }
    Ok(Some((strings, used)))
}

/// A number or a word of agreement.
fn simple(line: &[u8]) -> anyhow::Result<()> {
    match line.first() {
        Some(b':' | b'+') => Ok(()),
        _ => bail!("redis-server says {:?}", String::from_utf8_lossy(line)),
    }
}
