//! The bound on work: processor time, since the parsers do not count what they do.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What one input may cost for each KiB begun, all its runs and the checks on them together.
const CPU_TIME_PER_KIB_MAX: Duration = Duration::from_millis(10);

/// An input is slow if it is so in each of these.
const ATTEMPTS: usize = 3;

/// Runs `work` on `bytes` of input, and panics if it takes too long.
///
/// Time in which the thread waits for a processor does not count, so a busy machine changes nothing. Time that
/// a host takes from a virtual machine does, so what took too long is tried again.
pub fn within_cpu_time<T>(bytes: usize, work: impl Fn() -> T) -> T {
    let allowed = CPU_TIME_PER_KIB_MAX * (bytes / 1024 + 1) as u32;
    let mut taken = Duration::ZERO;
    for _ in 0..ATTEMPTS {
        let begin = thread_cpu_time();
        let result = work();
        taken = thread_cpu_time().saturating_sub(begin);
        if taken <= allowed {
            return result;
        }
    }
    panic!("{bytes} bytes took {taken:?} of processor time, over {allowed:?}");
}

fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    #[should_panic(expected = "of processor time")]
    fn work_without_end_is_noticed() {
        within_cpu_time(1, || (0..50_000_000_u64).map(black_box).sum::<u64>());
    }
}
