//! The rule of a room's sequence: dense-sequence.

use super::{
    Rule,
    case::{Case, Did, Room},
    presence::Presence,
    verdict::Verdict,
};

pub(super) fn judge(
    case: &Case<'_>,
    room: &Room<'_>,
    presence: &Presence<'_>,
    verdict: &mut Verdict,
) {
    let rule = verdict.rule(Rule::DenseSequence);
    rule.checked += room.orders.len() as u64;
    for pair in room.orders.windows(2) {
        let &[before, after] = pair else { continue };
        let (one, next) = (case.step(before), case.step(after));
        let (Some(place), Some(next_place)) = (one.sequence, next.sequence) else {
            continue;
        };
        if place == next_place {
            rule.broken.add(1, &[before, after], || {
                format!("One place for two events: {}, and {}", Did(one), Did(next))
            });
            continue;
        }
        if next.time <= one.time {
            rule.broken.add(1, &[before, after], || {
                format!(
                    "Time does not rise with the sequence: {}, and then {}",
                    Did(one),
                    Did(next)
                )
            });
            continue;
        }
        let between = next_place - place - 1;
        // Each event between them needs a time of its own.
        if next.time.abs_diff(one.time) - 1 < between {
            rule.broken.add(between, &[before, after], || {
                format!(
                    "{between} places were left out, and there is no time for as many events between: {}, and then {}",
                    Did(one),
                    Did(next)
                )
            });
            continue;
        }
        let missing = presence.holes(room, place + 1, next_place);
        if missing > 0 {
            rule.undecided.add(missing, &[before, after], || {
                let (first, last) = (place + 1, next_place - 1);
                let places = match first == last {
                    true => format!("#{first}"),
                    false => format!("#{first} to #{last}"),
                };
                format!(
                    "{places} in {}: the ordering of {missing} event(s) is not recorded (not sampled, or lost)",
                    room.name
                )
            });
        }
    }
}
