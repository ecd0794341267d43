//! Proves from a recorded run that Lamport's rules and the contract were kept.
//!
//! [`audit`] is a pure function of a [`Run`]. Each [`Rule`] is judged apart: *held* on so many steps, *broken* (with the
//! spans that say so), or *not decidable*, because what would tell was not recorded. What is broken stays broken, whatever
//! else is missing.
//!
//! ```text
//!  case      the run by rooms: orderings by sequence, each process's deliveries; which span numbers are missing
//!  presence  who was in a room from when to when
//!  clock     clock-condition, carried-time, rising-clock
//!  way       sent-ordered-delivered, same-event-for-all, private-refusals
//!  sequence  dense-sequence
//!  presence  one-departure
//!  delivery  gap-free-delivery
//! ```
//!
//! # What can be known
//!
//! An event that was not sampled leaves no span anywhere, and takes no number; a span that was lost on its way leaves a
//! hole in its program's numbers ([`Step::number`](super::step::Step::number)). So a delivery that is missing although the
//! program's numbers have no hole there never happened: *broken*. With a hole there, or where spans carry no numbers, the
//! loss of the span cannot be told from the loss of the delivery: *not decidable*, never taken for held.
//!
//! A hole in a room's sequence is an event that was not sampled, or whose span was lost, or that never was: *not
//! decidable*, unless the logical times beside it leave no room for it. One hole is explained: when a session resumes
//! whose history is gone, a LEAVE without a span stands right before the new JOIN.
//!
//! Who comes back after its departure was announced reads on where it stopped, and joins anew: until that JOIN is read,
//! receipts after the departure are right. If none is recorded, they are broken only where every room was recorded from
//! its first event without a hole and the program lost no span there: then there was no such JOIN.
//!
//! A recording may begin later than the room's first event. It is judged from where it begins: who was there before needs
//! no JOIN in it.

mod case;
mod clock;
mod delivery;
mod presence;
pub mod report;
mod sequence;
mod verdict;
mod way;

pub use self::verdict::{Apart, Finding, Findings, Judged, State, Verdict};
use self::{case::Case, presence::Presence};
use super::run::Run;

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// Lamport's clock condition on every send, ordering and delivery.
    ClockCondition,
    /// A message arrives with the time with which it was sent.
    CarriedTime,
    /// No clock stands still or goes back.
    RisingClock,
    /// Sends cause orderings, and orderings deliveries, of the same event.
    SentOrderedDelivered,
    /// A room's sequence has no gap, gives no place twice, and time rises with it.
    DenseSequence,
    /// An event is the same for everybody.
    SameEventForAll,
    /// Everybody receives a room's events in order, each once, none missing.
    GapFreeDelivery,
    /// One departure for each join, and nothing after it.
    OneDeparture,
    /// A refusal is told to its sender alone.
    PrivateRefusals,
}

impl Rule {
    /// All rules, as they are reported.
    pub const ALL: [Self; 9] = [
        Self::ClockCondition,
        Self::CarriedTime,
        Self::RisingClock,
        Self::SentOrderedDelivered,
        Self::DenseSequence,
        Self::SameEventForAll,
        Self::GapFreeDelivery,
        Self::OneDeparture,
        Self::PrivateRefusals,
    ];

    /// Its name, for people and programs; does not change.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClockCondition => "clock-condition",
            Self::CarriedTime => "carried-time",
            Self::RisingClock => "rising-clock",
            Self::SentOrderedDelivered => "sent-ordered-delivered",
            Self::DenseSequence => "dense-sequence",
            Self::SameEventForAll => "same-event-for-all",
            Self::GapFreeDelivery => "gap-free-delivery",
            Self::OneDeparture => "one-departure",
            Self::PrivateRefusals => "private-refusals",
        }
    }

    /// What it promises, in a sentence.
    #[must_use]
    pub fn promise(self) -> &'static str {
        match self {
            Self::ClockCondition => {
                "The receipt of a message is later, by logical time, than its sending and than the time it carried."
            }
            Self::CarriedTime => "A message arrives with the logical time at which it was sent.",
            Self::RisingClock => {
                "With each step of a process its logical time rises; no two of its steps share one."
            }
            Self::SentOrderedDelivered => {
                "What the service ordered was sent, once, and what is delivered was ordered."
            }
            Self::DenseSequence => {
                "A room's sequence has no gap and gives no place twice, and logical time rises with it."
            }
            Self::SameEventForAll => {
                "An event has the same sequence, time, kind, sender and text for everybody, its sender included."
            }
            Self::GapFreeDelivery => {
                "Everybody receives a room's events in order, each once, none missing between joining and leaving."
            }
            Self::OneDeparture => {
                "One departure for each join, nothing said or heard after it; names and ids are unique among those present."
            }
            Self::PrivateRefusals => "A refusal is told to its sender alone, and not twice.",
        }
    }

    /// Where to look, and what to do, when it is broken.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::ClockCondition => {
                "Whoever received does not merge: a receipt must set the clock to max(own, received) + 1."
            }
            Self::CarriedTime => {
                "Something between the two processes changed the timestamp, or sent another one than it recorded."
            }
            Self::RisingClock => {
                "Each step must tick, and the tick and the recording of its time must not be divided; a clock that starts \
                 anew needs a new process or a new epoch."
            }
            Self::SentOrderedDelivered => {
                "A traceparent was handed on wrongly, or a message was stored twice: look at the trace."
            }
            Self::DenseSequence => {
                "Place and time must be given in one step, to one event: look for two orderings at work, or a history that was restored."
            }
            Self::SameEventForAll => {
                "A broadcast must be encoded once: look for what is computed per recipient."
            }
            Self::GapFreeDelivery => {
                "Compare with `chitchat history`: what is there was lost or exchanged on its way to this participant."
            }
            Self::OneDeparture => {
                "Look for a stream that was not ended, or a departure that was announced by two who noticed it."
            }
            Self::PrivateRefusals => "A notice must go to the stream it answers, and to no other.",
        }
    }
}

/// Judges `run`.
///
/// Takes time and memory in proportion to the steps (times a logarithm), whatever they are.
#[must_use]
pub fn audit(run: &Run) -> Verdict {
    let case = Case::new(run);
    let mut verdict = Verdict::default();
    verdict.apart.late_rooms = case.rooms.iter().filter(|room| room.first > 1).count() as u64;
    clock::judge(&case, &mut verdict);
    way::judge(&case, &mut verdict);
    let presences: Vec<Presence<'_>> = case
        .rooms
        .iter()
        .map(|room| presence::judge(&case, room, &mut verdict))
        .collect();
    let mut rooms = case.rooms.iter().zip(&presences);
    let all_sampled = rooms.all(|(room, presence)| presence.is_complete(room));
    for (room, presence) in case.rooms.iter().zip(&presences) {
        sequence::judge(&case, room, presence, &mut verdict);
        delivery::judge(&case, room, presence, all_sampled, &mut verdict);
    }
    verdict
}
