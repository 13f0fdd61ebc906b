//! The threads of a run: each drives connections of its own, and all measure the same span.
//!
//! The thread that calls is the first of them and leads: it alone asks for the server's time and memory
//! and shows progress. With one thread nothing is started and nobody waits.

use super::clock::SECOND_NS;
use super::conditions::{Conditions, Progress};
use super::cost::{CpuTime, Spent};
use super::fleet::{Fleet, Wait};
use core_affinity::CoreId;
use std::io;
use std::iter;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Between two looks at who is there. A rally ends twice as much later, when all have looked.
const LOOK_NS: u64 = SECOND_NS / 50;
/// A run has at most so many rallies: before and behind what is measured.
const RALLIES_MAX: usize = 2;

/// What the threads know of each other.
#[derive(Debug, Default)]
struct Rallies {
    /// Threads that have come, to all rallies together.
    arrivals: AtomicUsize,
    /// When each ends; 0 until everybody has come.
    end_ns: [AtomicU64; RALLIES_MAX],
    /// A thread is gone: who waits for it waits in vain.
    left: AtomicBool,
    /// The first of all threads: what others say is its consequence.
    failure: Mutex<Option<io::Error>>,
}

/// One of the threads.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    pub conditions: &'a Conditions,
    rallies: &'a Rallies,
    /// Counts from 0, which is the leader's.
    pub index: usize,
}

/// Lets every thread work, this one among them. Returns what they bring, in their order, or the first
/// failure.
pub fn run<T: Send>(
    conditions: &Conditions,
    work: impl Fn(Member<'_>) -> io::Result<T> + Sync,
) -> io::Result<Vec<T>> {
    let rallies = Rallies::default();
    let results: Option<Vec<T>> = thread::scope(|scope| {
        let (rallies, work) = (&rallies, &work);
        let member = |index| Member { conditions, rallies, index };
        let mut others = Vec::new();
        for index in 1..conditions.threads {
            let builder = thread::Builder::new().name(format!("bench-{index}"));
            match builder.spawn_scoped(scope, move || member(index).serve(work)) {
                Ok(handle) => others.push(handle),
                Err(error) => rallies.leave(Some(error)),
            }
        }
        let own = member(0).serve(work);
        let others =
            others.into_iter().map(|other| other.join().unwrap_or_else(|p| resume_unwind(p)));
        // All of them are waited for, whatever the first brings.
        let all: Vec<_> = iter::once(own).chain(others).collect();
        all.into_iter().collect()
    });
    let failure = rallies.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    match failure {
        Some(error) => Err(error),
        None => results.ok_or_else(abandoned),
    }
}

fn abandoned() -> io::Error {
    io::Error::other("another thread of this run has ended")
}

impl Rallies {
    fn leave(&self, failure: Option<io::Error>) {
        if let Some(failure) = failure {
            let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(failure);
        }
        self.left.store(true, Ordering::Release);
    }
}

/// Whoever goes, by a panic too, is not waited for.
struct Leaving<'a>(&'a Rallies);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leave(None);
    }
}

impl<'a> Member<'a> {
    fn serve<T>(self, work: &impl Fn(Member<'a>) -> io::Result<T>) -> Option<T> {
        let _leaving = Leaving(self.rallies);
        match self.pin().and_then(|()| work(self)) {
            Ok(result) => Some(result),
            Err(error) => {
                self.rallies.leave(Some(error));
                None
            }
        }
    }

    /// Each thread has a core of its own: consecutive ones from the leader's.
    fn pin(self) -> io::Result<()> {
        let Some(first) = self.conditions.pin else { return Ok(()) };
        let id = first + self.index;
        if core_affinity::set_for_current(CoreId { id }) {
            return Ok(());
        }
        Err(io::Error::other(format!("this process may not run on core {id}")))
    }

    /// Waits until every thread has come; `meanwhile` polls the connections of this one. Returns the
    /// moment, the same for all, at which it ends.
    pub fn rally(self, mut meanwhile: impl FnMut(Wait) -> io::Result<()>) -> io::Result<u64> {
        let Conditions { clock, threads, .. } = *self.conditions;
        if threads == 1 {
            return Ok(clock.now_ns());
        }
        let place = self.rallies.arrivals.fetch_add(1, Ordering::AcqRel);
        // Nobody comes to the next one before all have come to this.
        let end_ns = &self.rallies.end_ns[place / threads];
        if place % threads == threads - 1 {
            end_ns.store(clock.now_ns() + 2 * LOOK_NS, Ordering::Release);
        }
        let end_ns = loop {
            let left = self.rallies.left.load(Ordering::Acquire);
            match end_ns.load(Ordering::Acquire) {
                0 if left => return Err(abandoned()),
                0 => meanwhile(Wait::Until(clock.now_ns() + LOOK_NS))?,
                end_ns => break end_ns,
            }
        };
        while clock.now_ns() < end_ns {
            meanwhile(Wait::Until(end_ns))?;
        }
        Ok(end_ns)
    }

    /// This thread's part of `total` things that are numbered from 0. Where one total is at least as
    /// large as another, so is each part of it.
    pub fn share(self, total: usize) -> Range<usize> {
        let threads = self.conditions.threads;
        let begin = |index: usize| index * (total / threads) + index.min(total % threads);
        begin(self.index)..begin(self.index + 1)
    }

    /// Upgrades under way at a time, where they are not what is measured.
    pub fn concurrency(self) -> usize {
        self.share(self.conditions.concurrency).len().max(1)
    }

    /// Connections that are, in the whole run, numbered from `first` on.
    pub fn fleet(self, first: usize) -> io::Result<Fleet> {
        let Conditions { target, clock, fleet, .. } = self.conditions;
        Fleet::new(target.clone(), *clock, *fleet, first)
    }

    pub fn is_leader(self) -> bool {
        self.index == 0
    }

    /// Shown by the leader only.
    pub fn progress(self) -> Progress {
        self.conditions.progress(self.is_leader())
    }

    /// The leader's to ask.
    pub fn server_time(self) -> io::Result<Option<CpuTime>> {
        if self.is_leader() { self.conditions.server_time() } else { Ok(None) }
    }

    /// What the server has spent since `before`; the leader's to ask.
    pub fn server_spent(self, before: Option<CpuTime>) -> io::Result<Option<Spent>> {
        Ok(self.server_time()?.zip(before).map(|(now, before)| now.since(before)))
    }

    /// The leader's to ask.
    pub fn server_memory(self) -> io::Result<Option<f64>> {
        if self.is_leader() { self.conditions.server_memory() } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::conditions;
    use super::*;

    fn threads(threads: usize) -> Conditions {
        Conditions { threads, ..conditions("ws://127.0.0.1:1") }
    }

    fn wait(member: Member<'_>) -> io::Result<u64> {
        member.rally(|_| {
            thread::yield_now();
            Ok(())
        })
    }

    #[test]
    fn shares_are_all_there_is_and_nothing_twice() {
        for (total, count) in [(10, 1), (10, 3), (3, 3), (2, 3), (7, 5), (8, 5)] {
            let shares = run(&threads(count), |member| Ok(member.share(total))).unwrap();
            let all: Vec<usize> = shares.iter().cloned().flatten().collect();
            assert_eq!(all, (0..total).collect::<Vec<_>>());
            let sizes = || shares.iter().map(|share| share.len());
            assert!(sizes().max() <= sizes().min().map(|least| least + 1));
        }
    }

    #[test]
    fn a_rally_ends_for_all_at_once() {
        let conditions = threads(3);
        let ends = run(&conditions, |member| {
            let ends_ns = (wait(member)?, wait(member)?);
            assert!(ends_ns.1 <= member.conditions.clock.now_ns());
            Ok(ends_ns)
        });
        let ends = ends.unwrap();
        assert!(ends.iter().all(|end_ns| *end_ns == ends[0]), "{ends:?}");
        assert!(ends[0].0 < ends[0].1);
    }

    #[test]
    fn the_failure_of_one_ends_the_run() {
        for failing in 0..3 {
            let outcome = run(&threads(3), |member| {
                if member.index == failing {
                    return Err(io::Error::other("it"));
                }
                wait(member)
            });
            assert_eq!(outcome.unwrap_err().to_string(), "it");
        }
    }

    #[test]
    fn only_the_leader_asks_for_the_server() {
        let asked = run(&threads(2), |member| {
            Ok((member.server_time()?.is_some(), member.server_memory()?.is_some()))
        });
        assert_eq!(asked.unwrap(), [(true, true), (false, false)]);
    }
}
