//! Each kind of damage, planted in a run that kept all rules, is found, under the right rule's name and no other's, but
//! where the damage cannot be done without breaking another rule as well: that one is named beside it.

use chitchat::{
    causality::{
        audit::{Rule, State, audit},
        step::{Act, Process, Step, StepId},
    },
    telemetry::EventName,
};
use opentelemetry::{SpanId, TraceId};

use crate::support::recorded::{Weather, conversation, run, words};

/// Runs that each damage is tried on.
const RUNS: u64 = 120;

/// Runs that must have a place for it, at least.
const RUNS_FITTING: u64 = 10;

/// Plants `damage` in run after run (it says whether there was a place for it): `rule` is then judged `state`, and
/// nothing is broken but that and `besides`.
#[track_caller]
fn damaged(rule: Rule, state: State, besides: &[Rule], damage: impl Fn(&mut Recorded) -> bool) {
    let mut fitting = 0;
    for seed in 0..RUNS {
        let mut recorded = Recorded(conversation(seed, Weather::CLEAR));
        if !damage(&mut recorded) {
            continue;
        }
        fitting += 1;
        let verdict = audit(&run(&recorded.0));
        let told = words(&verdict);
        assert_eq!(
            verdict.of(rule).state(),
            state,
            "seed {seed}: {rule:?}\n{told}"
        );
        let broken = verdict
            .rules
            .iter()
            .filter(|judged| judged.state() == State::Broken);
        for judged in broken {
            let fits = judged.rule == rule || besides.contains(&judged.rule);
            assert!(fits, "seed {seed}: {:?} as well\n{told}", judged.rule);
        }
    }
    assert!(
        fitting >= RUNS_FITTING,
        "only {fitting} runs have a place for it"
    );
}

#[track_caller]
fn broken(rule: Rule, besides: &[Rule], damage: impl Fn(&mut Recorded) -> bool) {
    damaged(rule, State::Broken, besides, damage);
}

/// The steps of a run, to be damaged.
struct Recorded(Vec<Step>);

/// Where a step is in it.
type Place = usize;

impl Recorded {
    fn find(&self, fits: impl Fn(&Self, Place) -> bool) -> Option<Place> {
        (0..self.0.len()).find(|&place| fits(self, place))
    }

    fn at(&self, place: Place) -> &Step {
        &self.0[place]
    }

    fn is(&self, place: Place, act: Act) -> bool {
        self.at(place).act == act
    }

    /// A delivery of an event.
    fn is_receipt(&self, place: Place) -> bool {
        self.is(place, Act::Deliver) && self.at(place).sequence.is_some()
    }

    /// The step before it (or after it) in its process.
    fn beside(&self, place: Place, by: i64) -> Option<Place> {
        let step = self.at(place);
        let number = step.number.unwrap().checked_add_signed(by)?;
        self.find(|all, other| {
            all.at(other).number == Some(number) && all.at(other).instance == step.instance
        })
    }

    fn cause(&self, place: Place) -> Option<Place> {
        let step = self.at(place);
        let id = StepId {
            trace: step.id.trace,
            span: step.parent?,
        };
        self.find(|all, other| all.at(other).id == id)
    }

    fn effects(&self, place: Place) -> Vec<Place> {
        let id = self.at(place).id;
        let caused = |&other: &Place| {
            self.at(other).id.trace == id.trace && self.at(other).parent == Some(id.span)
        };
        (0..self.0.len()).filter(caused).collect()
    }

    fn is_last_of_process(&self, place: Place) -> bool {
        self.beside(place, 1).is_none()
    }

    /// The last ordering of the room of `step`, which is the service's last of all in its history.
    fn last_order(&self) -> Option<Place> {
        let orders = (0..self.0.len())
            .filter(|&place| self.is(place, Act::Order) && self.at(place).sequence.is_some());
        let last = orders.max_by_key(|&place| self.at(place).start)?;
        let epoch = &self.at(last).epoch;
        let times = self
            .0
            .iter()
            .filter(|step| step.process.is_service() && step.epoch == *epoch);
        (times.map(|step| step.time).max() == Some(self.at(last).time)).then_some(last)
    }

    fn is_newest_room(&self, place: Place) -> bool {
        let Some(last) = self.last_order() else {
            return false;
        };
        self.at(last).room == self.at(place).room && self.at(last).epoch == self.at(place).epoch
    }

    /// Adds a step after `like`'s process's last one, made from `like`.
    fn append(&mut self, like: Step) -> Place {
        let last = self
            .0
            .iter()
            .filter(|step| step.instance == like.instance)
            .max_by_key(|step| step.number)
            .cloned();
        let times = self
            .0
            .iter()
            .filter(|step| step.process == like.process && step.epoch == like.epoch);
        let time = times
            .map(|step| step.time)
            .max()
            .unwrap_or(0)
            .max(like.message_time.unwrap_or(0));
        let wall = self.0.iter().map(|step| step.end).max().unwrap();
        self.0.push(Step {
            id: StepId {
                span: SpanId::from(0xffff_0000 + self.0.len() as u64),
                ..like.id
            },
            number: Some(last.and_then(|last| last.number).unwrap_or(0) + 1),
            time: time + 1,
            start: wall + 10,
            end: wall + 20,
            ..like
        });
        self.0.len() - 1
    }

    /// Adds an ordering at the end of the newest room.
    fn append_order(&mut self, of: impl Fn(&Step) -> Step) -> Option<Place> {
        let last = self.last_order()?;
        let newest = self.at(last).clone();
        let order = Step {
            act: Act::Order,
            process: newest.process.clone(),
            instance: newest.instance.clone(),
            service: newest.service.clone(),
            sequence: newest.sequence.map(|sequence| sequence + 1),
            ..of(&newest)
        };
        Some(self.append(order))
    }

    /// A participant of the newest room who left by itself, by its LEAVE's ordering, and never came again.
    fn leaver(&self) -> Option<Place> {
        self.find(|all, place| {
            let step = all.at(place);
            all.is(place, Act::Order)
                && step.event == EventName::Leave
                && step.parent.is_some()
                && all.is_newest_room(place)
                && !all.joins_after(place)
        })
    }

    /// Whether somebody of that name joins after it.
    fn joins_after(&self, place: Place) -> bool {
        let step = self.at(place);
        let joins = |_: &Self, other: Place| {
            let other = self.at(other);
            other.act == Act::Order
                && other.event == EventName::Join
                && other.participant == step.participant
                && other.room == step.room
                && other.epoch == step.epoch
                && other.sequence > step.sequence
        };
        self.find(joins).is_some()
    }

    /// The JOIN's ordering of somebody who is in the newest room at the end.
    fn present(&self) -> Option<Place> {
        self.find(|all, place| {
            let step = all.at(place);
            let leaves = |_: &Self, other: Place| {
                let other = all.at(other);
                other.act == Act::Order
                    && other.event == EventName::Leave
                    && other.participant == step.participant
                    && other.sequence > step.sequence
            };
            step.act == Act::Order
                && step.event == EventName::Join
                && all.is_newest_room(place)
                && !all.joins_after(place)
                && all.find(leaves).is_none()
        })
    }
}

#[test]
fn a_receipt_that_does_not_merge_breaks_the_clock_condition() {
    broken(Rule::ClockCondition, &[Rule::RisingClock], |run| {
        let Some(receipt) = run.find(|run, place| {
            // Its clock was behind, so what did not merge shows.
            run.is_receipt(place)
                && run.beside(place, -1).is_some_and(|before| {
                    run.at(before).time + 1 < run.at(place).message_time.unwrap()
                })
        }) else {
            return false;
        };
        let before = run.beside(receipt, -1).unwrap();
        run.0[receipt].time = run.at(before).time + 1;
        true
    });
}

#[test]
fn an_ordering_before_its_send_breaks_the_clock_condition() {
    // The send is what moves: its own clock may come to be ahead of its later steps.
    broken(Rule::ClockCondition, &[Rule::RisingClock], |run| {
        let Some(order) = run.find(|run, place| {
            run.is(place, Act::Order)
                && run.at(place).message_time.is_some()
                && run.at(place).parent.is_some()
        }) else {
            return false;
        };
        let send = run.cause(order).unwrap();
        run.0[send].time = run.at(order).time;
        run.0[order].message_time = Some(run.at(order).time);
        true
    });
}

#[test]
fn a_delivery_before_its_ordering_breaks_the_clock_condition() {
    broken(Rule::ClockCondition, &[Rule::RisingClock], |run| {
        let Some(receipt) = run.find(Recorded::is_receipt) else {
            return false;
        };
        run.0[receipt].time = run.at(receipt).message_time.unwrap() - 1;
        true
    });
}

#[test]
fn another_time_than_was_sent_breaks_the_carried_time() {
    for act in [Act::Order, Act::Deliver] {
        broken(Rule::CarriedTime, &[], |run| {
            let Some(step) = run.find(|run, place| {
                run.is(place, act)
                    && run.at(place).parent.is_some()
                    && run.at(place).message_time.is_some()
            }) else {
                return false;
            };
            run.0[step].message_time = run.at(step).message_time.map(|time| time - 1);
            true
        });
    }
}

#[test]
fn a_clock_that_stands_still_or_goes_back_breaks_the_rising_clock() {
    for back in [0, 1] {
        broken(Rule::RisingClock, &[], |run| {
            let Some(receipt) = run.find(|run, place| {
                run.is_receipt(place)
                    && run.beside(place, -1).is_some_and(|before| {
                        run.at(before).epoch == run.at(place).epoch
                            && run.at(before).time - back > run.at(place).message_time.unwrap()
                    })
            }) else {
                return false;
            };
            let before = run.beside(receipt, -1).unwrap();
            run.0[receipt].time = run.at(before).time - back;
            true
        });
    }
}

#[test]
fn two_orderings_at_one_time_break_the_rising_clock_over_rooms_and_refusals() {
    broken(Rule::RisingClock, &[], |run| {
        let Some(refusal) = run.find(|run, place| {
            let sent = run.cause(place).map(|send| run.at(send).time);
            run.is(place, Act::Order)
                && run.at(place).event == EventName::Refusal
                && run.beside(place, -1).is_some_and(|before| {
                    Some(run.at(before).time) > sent && run.at(before).epoch == run.at(place).epoch
                })
        }) else {
            return false;
        };
        let time = run.at(run.beside(refusal, -1).unwrap()).time;
        for told in run.effects(refusal) {
            run.0[told].message_time = Some(time);
        }
        run.0[refusal].time = time;
        true
    });
}

#[test]
fn places_left_out_break_the_dense_sequence_where_there_is_no_time_for_them() {
    broken(Rule::DenseSequence, &[], |run| {
        let Some(last) = run.last_order() else {
            return false;
        };
        let (room, epoch) = (run.at(last).room.clone(), run.at(last).epoch.clone());
        let from = run.at(last).sequence;
        for step in &mut run.0 {
            if step.room == room && step.epoch == epoch && step.sequence >= from {
                step.sequence = step.sequence.map(|sequence| sequence + 1_000);
            }
        }
        from > Some(1)
    });
}

#[test]
fn a_place_left_out_where_there_is_time_for_it_is_not_decidable() {
    damaged(Rule::DenseSequence, State::NotDecidable, &[], |run| {
        let Some(last) = run.last_order() else {
            return false;
        };
        let before = run.find(|run, place| {
            let (one, last) = (run.at(place), run.at(last));
            one.act == Act::Order
                && one.room == last.room
                && one.epoch == last.epoch
                && one.sequence == last.sequence.map(|sequence| sequence - 1)
                && one.time + 1 < last.time
        });
        // A JOIN may be one command with a LEAVE that has no span.
        let fits = before.is_some() && run.at(last).event == EventName::Message;
        for receipt in run.effects(last) {
            run.0[receipt].sequence = run.at(receipt).sequence.map(|sequence| sequence + 1);
        }
        run.0[last].sequence = run.at(last).sequence.map(|sequence| sequence + 1);
        fits
    });
}

#[test]
fn times_that_do_not_rise_with_the_sequence_break_it() {
    // Whoever received both received them in the wrong order, too.
    broken(Rule::DenseSequence, &[Rule::GapFreeDelivery], |run| {
        let is_message = |run: &Recorded, place: Place| {
            run.is(place, Act::Order) && run.at(place).event == EventName::Message
        };
        let next = |run: &Recorded, place: Place| {
            run.find(|run, other| {
                let (one, other_step) = (run.at(place), run.at(other));
                is_message(run, other)
                    && one.room == other_step.room
                    && one.epoch == other_step.epoch
                    && other_step.sequence == one.sequence.map(|sequence| sequence + 1)
            })
        };
        let Some(one) = run.find(|run, place| is_message(run, place) && next(run, place).is_some())
        else {
            return false;
        };
        let other = next(run, one).unwrap();
        let places = (run.at(one).sequence, run.at(other).sequence);
        for (order, sequence) in [(one, places.1), (other, places.0)] {
            for receipt in run.effects(order) {
                run.0[receipt].sequence = sequence;
            }
            run.0[order].sequence = sequence;
        }
        true
    });
}

#[test]
fn two_deliveries_exchanged_break_the_order_of_delivery() {
    broken(Rule::GapFreeDelivery, &[], |run| {
        let Some(second) = run.find(|run, place| {
            run.is_receipt(place)
                && run.is_last_of_process(place)
                && run.beside(place, -1).is_some_and(|before| {
                    run.is_receipt(before)
                        && run.at(before).epoch == run.at(place).epoch
                        && run.at(before).event != EventName::Join
                })
        }) else {
            return false;
        };
        let first = run.beside(second, -1).unwrap();
        let (one, other) = (run.at(first).clone(), run.at(second).clone());
        let time = one.time.max(other.message_time.unwrap() + 1);
        run.0[first] = Step {
            number: one.number,
            start: one.start,
            end: one.end,
            time,
            ..other.clone()
        };
        run.0[second] = Step {
            number: other.number,
            start: other.start,
            end: other.end,
            time: time + 1,
            ..one
        };
        true
    });
}

#[test]
fn a_delivery_repeated_breaks_it() {
    broken(Rule::GapFreeDelivery, &[], |run| {
        let Some(receipt) =
            run.find(|run, place| run.is_receipt(place) && run.is_last_of_process(place))
        else {
            return false;
        };
        run.append(run.at(receipt).clone());
        true
    });
}

/// A receipt with another one of the same stream after it.
fn inner_receipt(run: &Recorded) -> Option<Place> {
    run.find(|run, place| {
        run.is_receipt(place)
            && run.at(place).event == EventName::Message
            && run.beside(place, 1).is_some_and(|after| {
                run.is_receipt(after)
                    && run.at(after).event == EventName::Message
                    && run.at(after).epoch == run.at(place).epoch
            })
    })
}

#[test]
fn a_delivery_that_never_happened_breaks_it() {
    broken(Rule::GapFreeDelivery, &[], |run| {
        let Some(receipt) = inner_receipt(run) else {
            return false;
        };
        let gone = run.0.remove(receipt);
        for step in run
            .0
            .iter_mut()
            .filter(|step| step.instance == gone.instance)
        {
            step.number = step
                .number
                .map(|number| number - u64::from(Some(number) > gone.number));
        }
        true
    });
}

#[test]
fn a_delivery_whose_span_was_lost_is_not_decidable_and_named() {
    damaged(
        Rule::GapFreeDelivery,
        State::NotDecidable,
        &[],
        |recorded| {
            let Some(receipt) = inner_receipt(recorded) else {
                return false;
            };
            let gone = recorded.0.remove(receipt);
            let verdict = audit(&run(&recorded.0));
            let told = words(&verdict);
            assert!(
                told.contains(&format!("#{} in", gone.sequence.unwrap())),
                "{told}"
            );
            assert!(told.contains("1 of its spans there were lost"), "{told}");
            true
        },
    );
}

#[test]
fn without_numbers_a_missing_delivery_is_not_decidable() {
    damaged(Rule::GapFreeDelivery, State::NotDecidable, &[], |run| {
        let Some(receipt) = inner_receipt(run) else {
            return false;
        };
        run.0.remove(receipt);
        for step in &mut run.0 {
            step.number = None;
        }
        true
    });
}

#[test]
fn a_participant_without_spans_is_not_decidable_and_named() {
    damaged(
        Rule::GapFreeDelivery,
        State::NotDecidable,
        &[],
        |recorded| {
            let Some(join) = recorded.present() else {
                return false;
            };
            let Some(send) = recorded.cause(join) else {
                return false;
            };
            let (name, instance) = (
                recorded.at(join).participant.clone(),
                recorded.at(send).instance.clone(),
            );
            recorded.0.retain(|step| step.instance != instance);
            let told = words(&audit(&run(&recorded.0)));
            assert!(told.contains(&format!("What {name} received")), "{told}");
            true
        },
    );
}

#[test]
fn deliveries_that_disagree_about_an_event_break_that_it_is_the_same_for_all() {
    let faults: [fn(&mut Step); 3] = [
        |step| step.participant = "Mallory".into(),
        |step| step.sequence = Some(7_000),
        |step| step.event = EventName::Leave,
    ];
    for fault in faults {
        broken(Rule::SameEventForAll, &[], |run| {
            let Some(receipt) = run.find(|run, place| {
                run.is_receipt(place) && run.at(place).event == EventName::Message
            }) else {
                return false;
            };
            fault(&mut run.0[receipt]);
            true
        });
    }
}

#[test]
fn deliveries_disagree_also_where_the_ordering_is_not_recorded() {
    broken(Rule::SameEventForAll, &[], |run| {
        let Some(order) = run.find(|run, place| {
            run.is(place, Act::Order)
                && run.at(place).event == EventName::Message
                && run.effects(place).len() > 1
        }) else {
            return false;
        };
        let receipt = run.effects(order)[0];
        run.0[receipt].participant = "Mallory".into();
        run.0.remove(order);
        true
    });
}

#[test]
fn a_delivery_without_an_ordering_breaks_the_way() {
    broken(Rule::SentOrderedDelivered, &[], |run| {
        let Some(receipt) = run.find(Recorded::is_receipt) else {
            return false;
        };
        run.0[receipt].parent = None;
        true
    });
}

#[test]
fn a_message_that_became_two_events_breaks_the_way() {
    broken(Rule::SentOrderedDelivered, &[], |run| {
        let Some(order) = run.find(|run, place| {
            let step = run.at(place);
            step.act == Act::Order
                && step.event == EventName::Message
                && run.is_newest_room(place)
                && run.present().is_some_and(|join| {
                    run.at(join).participant == step.participant
                        && run.at(join).sequence < step.sequence
                })
        }) else {
            return false;
        };
        let stored = run.at(order).clone();
        run.append_order(|_| stored.clone()).is_some()
    });
}

#[test]
fn a_second_leave_breaks_one_departure() {
    broken(Rule::OneDeparture, &[], |run| {
        let Some(leave) = run.leaver() else {
            return false;
        };
        let name = run.at(leave).participant.clone();
        run.append_order(|newest| Step {
            id: StepId {
                trace: TraceId::from(0xdead_u128),
                ..newest.id
            },
            event: EventName::Leave,
            participant: name.clone(),
            parent: None,
            message_time: None,
            message_id: String::new(),
            ..newest.clone()
        })
        .is_some()
    });
}

#[test]
fn a_message_after_the_leave_breaks_one_departure() {
    broken(Rule::OneDeparture, &[], |run| {
        let Some(leave) = run.leaver() else {
            return false;
        };
        let left = run.at(run.cause(leave).unwrap()).clone();
        let said = run.append(Step {
            id: StepId {
                trace: TraceId::from(0xdead_u128),
                ..left.id
            },
            event: EventName::Message,
            ..left
        });
        let send = run.at(said).clone();
        run.append_order(|newest| Step {
            id: send.id,
            parent: Some(send.id.span),
            event: EventName::Message,
            participant: send.participant.clone(),
            message_id: send.message_id.clone(),
            message_time: Some(send.time),
            ..newest.clone()
        })
        .is_some()
    });
}

#[test]
fn a_delivery_after_the_leave_breaks_one_departure() {
    broken(Rule::OneDeparture, &[], |run| {
        let Some(leave) = run.leaver() else {
            return false;
        };
        let Some(order) = run.last_order() else {
            return false;
        };
        if run.at(order).sequence <= run.at(leave).sequence {
            return false;
        }
        let (left, order) = (
            run.at(run.cause(leave).unwrap()).clone(),
            run.at(order).clone(),
        );
        run.append(Step {
            process: left.process,
            instance: left.instance,
            service: left.service,
            act: Act::Deliver,
            parent: Some(order.id.span),
            message_time: Some(order.time),
            recipients: None,
            ..order
        });
        true
    });
}

#[test]
fn joining_twice_breaks_one_departure() {
    broken(Rule::OneDeparture, &[], |run| {
        let Some(join) = run.present() else {
            return false;
        };
        let joined = run.at(join).clone();
        run.append_order(|newest| Step {
            id: StepId {
                trace: TraceId::from(0xdead_u128),
                ..newest.id
            },
            event: EventName::Join,
            participant: joined.participant.clone(),
            parent: None,
            message_time: Some(1),
            message_id: String::new(),
            ..newest.clone()
        })
        .is_some()
    });
}

#[test]
fn a_delivery_to_one_who_never_joined_breaks_one_departure() {
    broken(Rule::OneDeparture, &[], |run| {
        let Some(receipt) = run.find(Recorded::is_receipt) else {
            return false;
        };
        let heard = run.at(receipt).clone();
        run.append(Step {
            process: Process {
                id: "4711".into(),
                instance: "spy".into(),
            },
            instance: "spy".into(),
            service: "spy".into(),
            ..heard
        });
        true
    });
}

#[test]
fn a_refusal_told_to_others_or_twice_breaks_that_it_is_private() {
    for to_sender in [true, false] {
        broken(Rule::PrivateRefusals, &[], |run| {
            let Some(told) = run.find(|run, place| {
                run.is(place, Act::Deliver) && run.at(place).event == EventName::Refusal
            }) else {
                return false;
            };
            let notice = run.at(told).clone();
            let Some(other) = run.find(|run, place| {
                let other = run.at(place);
                run.is(place, Act::Deliver)
                    && other.epoch == notice.epoch
                    && (other.process == notice.process) == to_sender
            }) else {
                return false;
            };
            let other = run.at(other).clone();
            run.append(Step {
                process: other.process,
                instance: other.instance,
                service: other.service,
                ..notice
            });
            true
        });
    }
}

#[test]
fn a_service_that_starts_again_with_an_older_clock_breaks_the_rising_clock() {
    // What it orders then cannot be later than what was sent to it.
    let besides = [Rule::ClockCondition, Rule::CarriedTime, Rule::DenseSequence];
    broken(Rule::RisingClock, &besides, |run| {
        let is_event = |run: &Recorded, place: Place| {
            run.is(place, Act::Order) && run.at(place).sequence.is_some()
        };
        let Some(first) = run.find(|run, place| {
            is_event(run, place)
                && run.at(place).number == Some(1)
                && run
                    .find(|run, other| {
                        let (one, other_step) = (run.at(place), run.at(other));
                        is_event(run, other)
                            && other_step.instance != one.instance
                            && other_step.epoch == one.epoch
                            && other_step.room == one.room
                            && other_step.sequence < one.sequence
                    })
                    .is_some()
        }) else {
            return false;
        };
        // No other step has this time, and the next one of this start is later.
        run.0[first].time = -5;
        true
    });
}

#[test]
fn without_numbers_a_clock_that_goes_back_shows_by_the_wall_clock() {
    broken(Rule::RisingClock, &[], |run| {
        let Some(receipt) = run.find(|run, place| {
            run.is_receipt(place)
                && run.beside(place, -1).is_some_and(|before| {
                    run.at(before).epoch == run.at(place).epoch
                        && run.at(before).time - 1 > run.at(place).message_time.unwrap()
                })
        }) else {
            return false;
        };
        run.0[receipt].time = run.at(run.beside(receipt, -1).unwrap()).time - 1;
        for step in &mut run.0 {
            step.number = None;
        }
        true
    });
}

#[test]
fn an_id_that_two_have_breaks_one_departure() {
    broken(Rule::OneDeparture, &[], |run| {
        let Some(join) = run.present() else {
            return false;
        };
        let joined = run.at(join).clone();
        let Some(held) = run.cause(join).map(|send| run.at(send).process.id.clone()) else {
            return false;
        };
        let Some(send) = run.append_order(|newest| Step {
            id: StepId {
                trace: TraceId::from(0xdead_u128),
                ..newest.id
            },
            event: EventName::Join,
            participant: "Twin".into(),
            parent: Some(SpanId::from(0xbeef)),
            message_time: Some(1),
            message_id: String::new(),
            ..newest.clone()
        }) else {
            return false;
        };
        let order = run.at(send).clone();
        run.0.push(Step {
            id: StepId {
                span: SpanId::from(0xbeef),
                ..order.id
            },
            parent: None,
            act: Act::Send,
            process: Process {
                id: held,
                instance: "twin".into(),
            },
            instance: "twin".into(),
            service: "twin".into(),
            number: Some(1),
            time: 1,
            message_time: None,
            sequence: None,
            recipients: None,
            ..order
        });
        joined.room == run.at(send).room
    });
}

#[test]
fn a_leave_that_another_sent_breaks_one_departure() {
    broken(Rule::OneDeparture, &[], |run| {
        let Some(leave) = run.leaver() else {
            return false;
        };
        let send = run.cause(leave).unwrap();
        let other = &mut run.0[send];
        other.process = Process {
            id: "4711".into(),
            instance: "other".into(),
        };
        other.instance = "other".into();
        other.number = Some(1);
        true
    });
}

#[test]
fn a_leave_of_one_who_never_joined_breaks_one_departure() {
    broken(Rule::OneDeparture, &[], |run| {
        run.append_order(|newest| Step {
            id: StepId {
                trace: TraceId::from(0xdead_u128),
                ..newest.id
            },
            event: EventName::Leave,
            participant: "Nobody".into(),
            parent: None,
            message_time: None,
            message_id: String::new(),
            ..newest.clone()
        })
        .is_some()
    });
}

#[test]
fn an_ordering_by_a_participant_or_a_receipt_by_the_service_breaks_the_way() {
    for (act, process) in [(Act::Order, "4711"), (Act::Deliver, Process::SERVICE)] {
        let all_else = Rule::ALL;
        broken(Rule::SentOrderedDelivered, &all_else, |run| {
            let Some(place) = run.find(|run, place| run.is(place, act)) else {
                return false;
            };
            run.0[place].process.id = process.into();
            true
        });
    }
}

#[test]
fn an_ordering_that_begins_its_sender_s_trace_anew_breaks_the_way() {
    broken(Rule::SentOrderedDelivered, &[Rule::OneDeparture], |run| {
        let Some(order) = run.find(|run, place| {
            run.is(place, Act::Order)
                && run.at(place).event == EventName::Message
                && run.cause(place).is_some()
        }) else {
            return false;
        };
        run.0[order].parent = None;
        true
    });
}

#[test]
fn a_message_stored_again_under_another_trace_breaks_the_way() {
    broken(Rule::SentOrderedDelivered, &[], |run| {
        let Some(order) = run.find(|run, place| {
            run.is(place, Act::Order)
                && run.at(place).event == EventName::Message
                && run.is_newest_room(place)
        }) else {
            return false;
        };
        let stored = run.at(order).clone();
        run.append_order(|_| Step {
            id: StepId {
                trace: TraceId::from(0xdead_u128),
                ..stored.id
            },
            parent: None,
            ..stored.clone()
        })
        .is_some()
    });
}

/// A message of a sender that traces, by its ordering.
fn traced_message(run: &Recorded) -> Option<Place> {
    run.find(|run, place| {
        run.is(place, Act::Order)
            && run.at(place).event == EventName::Message
            && run.cause(place).is_some()
            && !run.effects(place).is_empty()
    })
}

#[test]
fn a_message_under_another_s_name_breaks_that_it_is_the_same_for_all() {
    broken(Rule::SameEventForAll, &[], |run| {
        let Some(order) = traced_message(run) else {
            return false;
        };
        for place in run.effects(order).into_iter().chain([order]) {
            run.0[place].participant = "Mallory".into();
        }
        true
    });
}

#[test]
fn a_text_that_was_changed_on_its_way_breaks_that_it_is_the_same_for_all() {
    let said = |run: &mut Recorded, texts: [&str; 3]| {
        let Some(order) = traced_message(run) else {
            return false;
        };
        let send = run.cause(order).unwrap();
        run.0[send].text = texts[0].into();
        run.0[order].text = texts[1].into();
        let receipt = run.effects(order)[0];
        run.0[receipt].text = texts[2].into();
        true
    };
    for texts in [["pay 1", "pay 9", "pay 9"], ["pay 1", "pay 1", "pay 9"]] {
        broken(Rule::SameEventForAll, &[], |run| said(run, texts));
    }
    // What is not told is not judged; a text is tidied before it is ordered.
    for texts in [["", "pay 1", "pay 1"], [" e\u{301} ", "\u{e9}", "\u{e9}"]] {
        damaged(Rule::SameEventForAll, State::Held, &[], |run| {
            said(run, texts)
        });
    }
}

#[test]
fn a_refusal_that_did_not_merge_a_possible_time_breaks_the_carried_time() {
    for (sent, state) in [(0, State::Broken), (1 << 40, State::Held)] {
        damaged(Rule::CarriedTime, state, &[Rule::RisingClock], |run| {
            let Some(order) = run.find(|run, place| {
                run.is(place, Act::Order)
                    && run.at(place).event == EventName::Refusal
                    && run.at(place).message_time.is_some()
                    && run.cause(place).is_some()
            }) else {
                return false;
            };
            run.0[order].message_time = None;
            if sent > 0 {
                let send = run.cause(order).unwrap();
                run.0[send].time = sent;
            }
            true
        });
    }
}

#[test]
fn a_span_that_was_lost_leaves_its_clock_undecided_wherever_it_was() {
    damaged(Rule::RisingClock, State::NotDecidable, &[], |run| {
        let Some(inner) = run
            .find(|run, place| run.beside(place, -1).is_some() && run.beside(place, 1).is_some())
        else {
            return false;
        };
        run.0.remove(inner);
        true
    });
}

#[test]
fn one_number_on_two_steps_leaves_their_order_undecided() {
    damaged(Rule::RisingClock, State::NotDecidable, &[], |run| {
        let Some(receipt) = run.find(|run, place| {
            run.is_receipt(place)
                && run.is_last_of_process(place)
                && run.beside(place, -1).is_some()
        }) else {
            return false;
        };
        let number = run.at(receipt).number.unwrap() - 1;
        run.0[receipt].number = Some(number);
        true
    });
}
