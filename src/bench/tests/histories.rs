//! `durable`, `replay` and `resume` against a server that acknowledges or replays badly.

use super::super::acked::Quota;
use super::super::durable::{self, DurablePlan};
use super::super::replay::{self, ReplayPlan};
use super::super::resume::{self, ResumePlan};
use super::super::returning::{By, Crew};
use super::keeper::{Misdeed, keeper};
use super::*;

/// The native protocol at this server.
fn native(url: &str) -> Conditions {
    let dialect = Dialect { channel_prefix: "kept:".to_string(), ..Dialect::stentor() };
    Conditions { target: Target::new(url, &dialect, 7).unwrap(), ..conditions(url) }
}

fn durable(threads: usize, misdeed: Misdeed) -> Summary {
    let plan = DurablePlan { publishers: 3, window: 4, data_bytes: 80 };
    let conditions = Conditions { threads, ..native(&keeper(misdeed)) };
    durable::run(&conditions, plan).unwrap()
}

fn replay(misdeed: Misdeed) -> std::io::Result<Summary> {
    let probing = Probing { connections: 2, rate: 200.0 };
    let plan = ReplayPlan { publications: 410, window: 16, data_bytes: 80, probing };
    let conditions =
        Conditions { duration: Duration::from_millis(100), ..native(&keeper(misdeed)) };
    replay::run(&conditions, plan)
}

fn resume(by: By, misdeed: Misdeed) -> Summary {
    let plan = ResumePlan {
        crew: Crew { clients: 6, subscriptions: 3, topics: 4, by },
        data_bytes: 80,
        rate: 500.0,
        away: Duration::from_millis(200),
        concurrency: 2,
    };
    resume::run(&native(&keeper(misdeed)), plan).unwrap()
}

#[test]
fn acknowledgements_are_counted() {
    let summary = durable(1, Misdeed::None);
    assert_eq!(summary.faults, Faults::default(), "{:?}", summary.notes);
    assert!(figure(&summary, "acknowledgements") > 100.0);
    assert!(figure(&summary, "cpu_per_acknowledgement") >= 0.0);
    expect_sums(&durable(2, Misdeed::None), "acknowledgements");
}

#[test]
fn bad_acknowledgements_are_noticed() {
    let faults = durable(1, Misdeed::RepeatAck).faults;
    assert!(faults.repeated > 5, "{faults:?}");
    assert_eq!(Faults { repeated: 0, ..faults }, Faults::default());

    let summary = durable(1, Misdeed::WrongAck);
    assert!(summary.faults.unexpected > 5, "{:?}", summary.faults);
    assert_eq!(Faults { unexpected: 0, ..summary.faults }, Faults::default());
    assert!(summary.notes.iter().any(|note| note.contains("has offset")), "{:?}", summary.notes);
}

#[test]
fn an_acknowledgement_that_never_comes_is_lost() {
    let url = keeper(Misdeed::LoseAck);
    let conditions = native(&url);
    let quota = Quota { window: 4, data_bytes: 80, publications_max: 200 };
    let outcomes = team::run(&conditions, |member| {
        let mut publishers = acked::AckedPublishers::assemble(member, quota, 0..1)?;
        publishers.quiet_ns = 200_000_000;
        publishers.publish_all()?;
        Ok(publishers.outcome())
    });
    let faults = outcomes.unwrap().remove(0).faults;
    // Each takes a place of the window with it, so with the last one publishing ends.
    assert_eq!(faults, Faults { lost: 4, ..Faults::default() });
}

#[test]
fn everything_is_replayed_once_and_in_order() {
    let summary = replay(Misdeed::None).unwrap();
    assert_eq!(summary.faults, Faults::default(), "{:?}", summary.notes);
    assert_eq!(figure(&summary, "publications"), 410.0);
    assert_eq!(figure(&summary, "not_kept"), 0.0);
    assert!(summary.latencies.iter().any(|latency| latency.name == "ping before"));

    let summary = replay(Misdeed::Trim).unwrap();
    assert_eq!(summary.faults, Faults::default(), "{:?}", summary.notes);
    assert_eq!(figure(&summary, "publications"), 205.0);
    assert_eq!(figure(&summary, "not_kept"), 205.0);
}

/// Once in 25, of 820: acknowledgements were the first half.
#[test]
fn bad_replays_are_noticed() {
    let none = Faults::default();
    for (misdeed, wanted) in [
        (Misdeed::Lose, Faults { lost: 16, ..none }),
        (Misdeed::Repeat, Faults { repeated: 16, ..none }),
        (Misdeed::Reorder, Faults { reordered: 16, ..none }),
        (Misdeed::Corrupt, Faults { lost: 16, corrupt: 16, ..none }),
        (Misdeed::WrongOffset, Faults { unexpected: 16, ..none }),
    ] {
        let summary = replay(misdeed).unwrap();
        assert_eq!(summary.faults, wanted, "{misdeed:?}: {:?}", summary.notes);
    }
}

#[test]
fn what_is_not_in_the_channel_is_not_replayed() {
    let error = replay(Misdeed::WrongAck).unwrap_err().to_string();
    assert!(error.starts_with("the channel is not filled: 410 acknowledged"), "{error}");
}

#[test]
fn everybody_comes_back_with_everything() {
    for by in [By::Session, By::Recover] {
        let summary = resume(by, Misdeed::None);
        assert_eq!(summary.faults, Faults::default(), "{by:?}: {:?}", summary.notes);
        assert_eq!(figure(&summary, "clients"), 6.0);
        assert_eq!(figure(&summary, "not_restored"), 0.0);
        assert!(figure(&summary, "missed_meanwhile") > 50.0);
        assert!(figure(&summary, "received_per_client") > 1.0);
    }
}

#[test]
fn what_returning_clients_do_not_get_is_noticed() {
    for by in [By::Session, By::Recover] {
        for misdeed in [Misdeed::Lose, Misdeed::Repeat, Misdeed::Reorder, Misdeed::WrongOffset] {
            let summary = resume(by, misdeed);
            let faults = summary.faults;
            let (count, rest) = match misdeed {
                Misdeed::Lose => (faults.lost, Faults { lost: 0, ..faults }),
                Misdeed::Repeat => (faults.repeated, Faults { repeated: 0, ..faults }),
                Misdeed::Reorder => (faults.reordered, Faults { reordered: 0, ..faults }),
                _ => (faults.unexpected, Faults { unexpected: 0, ..faults }),
            };
            assert!(count > 2, "{by:?} {misdeed:?}: {faults:?}");
            assert_eq!(rest, Faults::default(), "{by:?} {misdeed:?}: {:?}", summary.notes);
            assert_eq!(figure(&summary, "not_restored"), 0.0);
        }
    }
}

#[test]
fn whoever_is_refused_is_not_restored() {
    let summary = resume(By::Session, Misdeed::Forget);
    assert_eq!(figure(&summary, "not_restored"), 6.0);
    assert_eq!(summary.faults.unexpected, 6);
    assert!(summary.faults.lost > 50, "{:?}", summary.faults);
    let notes = &summary.notes;
    assert!(notes.iter().any(|note| note == "only 0 of 6 clients are restored"), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("session_not_found")), "{notes:?}");
}

#[test]
fn one_thread_proves_a_replay_and_a_return() {
    let conditions = by(2, "ws://127.0.0.1:1");
    let probing = Probing { connections: 1, rate: 1.0 };
    let plan = ReplayPlan { publications: 1, window: 1, data_bytes: 80, probing };
    let error = replay::run(&conditions, plan).unwrap_err().to_string();
    assert!(error.starts_with("--threads: there is one reader"), "{error}");
    let plan = ResumePlan {
        crew: Crew { clients: 1, subscriptions: 1, topics: 1, by: By::Session },
        data_bytes: 80,
        rate: 1.0,
        away: Duration::ZERO,
        concurrency: 1,
    };
    let error = resume::run(&conditions, plan).unwrap_err().to_string();
    assert!(error.starts_with("--threads: what is published"), "{error}");
}
