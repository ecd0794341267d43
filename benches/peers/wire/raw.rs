//! What the plain TCP broadcaster speaks: see [`crate::raw`].

use anyhow::ensure;

use super::{Opening, Role, Wire};
use crate::raw::{ACCEPTED, LENGTH_BYTES, PUBLISHER, SUBSCRIBER};

pub struct Raw {
    accepted: bool,
}

impl Wire for Raw {
    fn open(opening: &Opening, out: &mut Vec<u8>) -> Self {
        out.push(match opening.role {
            Role::Publisher => PUBLISHER,
            Role::Subscriber | Role::Stalled | Role::Frozen => SUBSCRIBER,
        });
        Self { accepted: false }
    }

    fn is_ready(&self) -> bool {
        self.accepted
    }

    fn publish(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let length = u16::try_from(text.len()).expect("a text is short");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(text);
    }

    fn read(
        &mut self,
        input: &[u8],
        _: &mut Vec<u8>,
        mut deliver: impl FnMut(usize, &[u8]),
    ) -> anyhow::Result<usize> {
        let mut used = 0;
        if !self.accepted && !input.is_empty() {
            ensure!(
                input[0] == ACCEPTED,
                "the broadcaster answered {:?}",
                input[0]
            );
            self.accepted = true;
            used = 1;
        }
        while let Some([high, low]) = input.get(used..used + LENGTH_BYTES) {
            let begin = used + LENGTH_BYTES;
            let end = begin + usize::from(u16::from_be_bytes([*high, *low]));
            let Some(text) = input.get(begin..end) else {
                break;
            };
            deliver(0, text);
            used = end;
        }
        Ok(used)
    }
}
