//! The seeds of simulations: which of them run, and on all cores.

use std::env;
use std::fmt::Debug;
use std::panic;
use std::thread;

/// Runs a simulation with each of the first `count` seeds, or of so many as `STENTOR_SIM_SEEDS` says; with
/// `STENTOR_SIM_SEED` that one only. Each returns how often it met what is named. If no fewer ran than
/// `count`, all of it must have been met more than `least` times: else the seeds prove nothing.
pub fn run<const N: usize>(
    (count, least): (u64, u64),
    names: [impl Debug; N],
    simulate: fn(u64) -> [u64; N],
) {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("STENTOR_SIM_SEED") {
        simulate(seed);
        return;
    }
    let seeds = number("STENTOR_SIM_SEEDS").unwrap_or(count);
    let threads = thread::available_parallelism().map_or(1, usize::from) as u64;
    let met = thread::scope(|scope| {
        let run = |first| {
            scope.spawn(move || {
                let seeds = (first..seeds).step_by(threads as usize);
                seeds.map(|seed| replayable(seed, simulate)).fold([0; N], add)
            })
        };
        let running: Vec<_> = (0..threads).map(run).collect();
        let met = running.into_iter().map(|thread| thread.join().expect("every seed passes"));
        met.fold([0; N], add)
    });
    if seeds >= count {
        assert!(met.iter().all(|count| *count > least), "{names:?}: {met:?}");
    }
}

fn replayable<const N: usize>(seed: u64, simulate: fn(u64) -> [u64; N]) -> [u64; N] {
    panic::catch_unwind(|| simulate(seed)).unwrap_or_else(|panic| {
        eprintln!("seed {seed} failed; replay it with STENTOR_SIM_SEED={seed}");
        panic::resume_unwind(panic);
    })
}

fn add<const N: usize>(mut sum: [u64; N], more: [u64; N]) -> [u64; N] {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    sum
}
