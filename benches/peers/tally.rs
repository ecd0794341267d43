//! What was delivered, and whether it was what was sent.

use hdrhistogram::Histogram;

/// Bytes of each text: a sentence.
pub const TEXT_BYTES: usize = 100;

/// Hexadecimal digits at the beginning of each text: the message's number, from 0 on.
const NUMBER_BYTES: usize = 8;

/// The rest of each text.
const FILLER: &[u8; TEXT_BYTES - NUMBER_BYTES] = &[b'x'; TEXT_BYTES - NUMBER_BYTES];

/// The longest latency that is told apart. Unit: nanoseconds (a minute); what is longer counts as that.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// The text of a message.
pub fn text(number: u32) -> [u8; TEXT_BYTES] {
    let mut text = [0; TEXT_BYTES];
    let (digits, filler) = text.split_at_mut(NUMBER_BYTES);
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * place)) as usize & 15];
    }
    filler.copy_from_slice(FILLER);
    text
}

/// The number in a text; none if it is none of these texts.
fn number(text: &[u8]) -> Option<u32> {
    let (digits, filler) = text.split_first_chunk::<NUMBER_BYTES>()?;
    if filler != FILLER {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u32::from(digit))
    })
}

/// No latencies yet, in nanoseconds.
pub fn latencies() -> Histogram<u32> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("these bounds make a histogram")
}

/// All deliveries of a run.
pub struct Tally {
    /// When each message was sent, or was to be sent, by its number. Unit: nanoseconds of the client's clock.
    sent_at: Vec<u64>,
    pub delivered: u64,
    /// Those whose length or content was another than sent.
    pub bad: u64,
    /// Those that were not the next for their subscriber.
    pub misordered: u64,
    /// Whether latencies count.
    pub measuring: bool,
    /// Unit: nanoseconds.
    pub latencies: Histogram<u32>,
}

impl Tally {
    pub fn new() -> Self {
        Self {
            sent_at: Vec::new(),
            delivered: 0,
            bad: 0,
            misordered: 0,
            measuring: false,
            latencies: latencies(),
        }
    }

    /// How many messages were sent.
    pub fn sent(&self) -> u64 {
        self.sent_at.len() as u64
    }

    /// The text of the next message, which is sent, or was to be sent, at this time.
    pub fn send(&mut self, at_ns: u64) -> [u8; TEXT_BYTES] {
        let number = u32::try_from(self.sent_at.len()).expect("a run is short");
        self.sent_at.push(at_ns);
        text(number)
    }

    /// A subscriber got this, and `next` was the number it was to get.
    pub fn deliver(&mut self, next: &mut u32, text: &[u8], now_ns: u64) {
        self.delivered += 1;
        let sent = number(text).and_then(|number| {
            let sent_at = self.sent_at.get(number as usize)?;
            Some((number, *sent_at))
        });
        let Some((number, sent_at)) = sent else {
            self.bad += 1;
            *next += 1;
            return;
        };
        if number != *next {
            self.misordered += 1;
        }
        *next = number + 1;
        if self.measuring {
            let latency = now_ns.saturating_sub(sent_at);
            self.latencies.saturating_record(latency);
        }
    }
}
