//! The audit finds nothing in what kept the rules, and names what is missing from it.

use chitchat::causality::{
    audit::{Rule, State, Verdict, audit},
    step::Step,
};

use crate::support::recorded::{Weather, conversation, run, words};

/// Runs of each kind: a thousand over all.
const RUNS: u64 = 250;

fn of(steps: &[Step]) -> Verdict {
    audit(&run(steps))
}

/// Holds the verdict on each run that is recorded in `weather` against `right`.
fn judge_all(weather: Weather, right: impl Fn(State) -> bool) {
    for seed in 0..RUNS {
        let verdict = of(&conversation(seed, weather));
        let state = verdict.state();
        assert!(right(state), "seed {seed}: {state:?}\n{}", words(&verdict));
    }
}

#[test]
fn a_run_that_was_recorded_whole_is_held_in_every_rule() {
    judge_all(Weather::CLEAR, |state| state == State::Held);
}

#[test]
fn what_was_not_sampled_is_not_decidable_and_never_broken() {
    let weather = Weather {
        sampled: 0.3,
        ..Weather::CLEAR
    };
    judge_all(weather, |state| state != State::Broken);
}

#[test]
fn lost_spans_and_killed_programs_are_not_decidable_and_never_broken() {
    let weather = Weather {
        lost: 0.05,
        kills: true,
        tracing: 0.8,
        sampled: 0.9,
        ..Weather::CLEAR
    };
    judge_all(weather, |state| state != State::Broken);
}

#[test]
fn without_numbers_nothing_is_taken_for_broken_and_what_is_there_is_held() {
    let weather = Weather {
        numbered: false,
        ..Weather::CLEAR
    };
    judge_all(weather, |state| state == State::Held);
}

#[test]
fn a_long_run_is_held_like_a_short_one() {
    let long = Weather {
        deeds: 30_000,
        ..Weather::CLEAR
    };
    let steps = conversation(1, long);
    assert!(steps.len() > 30_000, "{}", steps.len());
    let verdict = of(&steps);
    assert_eq!(verdict.state(), State::Held, "{}", words(&verdict));
}

#[test]
fn each_rule_has_a_name_of_its_own_and_a_promise() {
    for rule in Rule::ALL {
        assert!(rule.promise().ends_with('.'), "{rule:?}");
        assert_eq!(
            Rule::ALL
                .iter()
                .filter(|other| other.name() == rule.name())
                .count(),
            1
        );
    }
}
