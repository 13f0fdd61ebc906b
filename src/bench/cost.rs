//! What the server spends, from procfs: CPU time and resident memory.

use super::clock::SECOND_NS;
use std::fs;
use std::io;

/// `/proc/PID/stat` counts in this unit (USER_HZ, the same on every Linux).
const TICKS_PER_SECOND: u64 = 100;

/// A server process.
#[derive(Debug, Clone, Copy)]
pub struct ServerProcess {
    pid: u32,
}

/// What the process has used since it began.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuTime {
    /// On a CPU: to the nanosecond, unless threads have ended meanwhile.
    pub total_ns: u64,
    /// As the kernel has split it, by what it found at its timer ticks; in steps of 10 ms.
    pub user_ns: u64,
    pub kernel_ns: u64,
}

/// What the process used over a span, divided between its own code and the kernel's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    pub user_ns: f64,
    pub kernel_ns: f64,
}

impl ServerProcess {
    pub fn new(pid: u32) -> io::Result<Self> {
        let process = Self { pid };
        process.cpu_time().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot watch process {pid}: {error}"))
        })?;
        Ok(process)
    }

    pub fn cpu_time(self) -> io::Result<CpuTime> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The name, in parentheses, may hold anything.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = |index: usize| -> u64 {
            let field = fields.split_ascii_whitespace().nth(index);
            field.and_then(|field| field.parse().ok()).unwrap_or(0)
        };
        // proc(5): utime and stime are fields 14 and 15, the first behind the name is 3.
        let [user_ns, kernel_ns] =
            [11, 12].map(|index| ticks(index) * SECOND_NS / TICKS_PER_SECOND);
        // The ticks, rounded down, know of threads that have ended, too.
        let total_ns = self.run_ns().unwrap_or(0).max(user_ns + kernel_ns);
        Ok(CpuTime { total_ns, user_ns, kernel_ns })
    }

    /// By schedstat; `None` if this kernel has none.
    fn run_ns(self) -> Option<u64> {
        let mut total = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid)).ok()? {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            total += text.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
        }
        Some(total)
    }

    /// Bytes of memory in use.
    pub fn resident_bytes(self) -> io::Result<u64> {
        // The counters of `status` may be off by some pages for each thread; this walks them.
        let path = format!("/proc/{}/smaps_rollup", self.pid);
        let text = fs::read_to_string(path)
            .or_else(|_| fs::read_to_string(format!("/proc/{}/status", self.pid)))?;
        let line = text.lines().find(|line| line.starts_with("Rss:") || line.starts_with("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse().ok());
        Ok(kibibytes.unwrap_or(0_u64) * 1024)
    }
}

impl CpuTime {
    /// What was used since `before`.
    pub fn since(self, before: Self) -> Spent {
        let [total, user, kernel] = [
            self.total_ns.saturating_sub(before.total_ns),
            self.user_ns.saturating_sub(before.user_ns),
            self.kernel_ns.saturating_sub(before.kernel_ns),
        ]
        .map(|ns| ns as f64);
        let user_share = if user + kernel > 0.0 { user / (user + kernel) } else { 0.0 };
        Spent { user_ns: total * user_share, kernel_ns: total * (1.0 - user_share) }
    }
}

impl Spent {
    pub fn total_ns(self) -> f64 {
        self.user_ns + self.kernel_ns
    }

    /// How far the split can be off, as a share of the whole: one standard deviation of the user ticks
    /// that the kernel's clock, `ticks_per_second`, has counted.
    pub fn split_error(self, ticks_per_second: f64) -> f64 {
        let ticks = self.total_ns() / SECOND_NS as f64 * ticks_per_second;
        let share = self.user_ns / self.total_ns();
        (share * (1.0 - share) / ticks).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_watched() {
        let process = ServerProcess::new(std::process::id()).unwrap();
        let before = process.cpu_time().unwrap();
        let mut sum = 0_u64;
        // Threads of other tests that end take their nanoseconds along; the ticks catch up.
        let mut spent = Spent::default();
        while spent.total_ns() < 1e6 {
            sum = std::hint::black_box(sum.wrapping_add(1));
            spent = process.cpu_time().unwrap().since(before);
        }
        assert!((spent.user_ns + spent.kernel_ns - spent.total_ns()).abs() < 1.0);
        assert!(process.resident_bytes().unwrap() > 1 << 20);
        assert!(ServerProcess::new(u32::MAX).is_err());
    }

    #[test]
    fn the_whole_is_divided_as_the_ticks_are() {
        let spent = CpuTime { total_ns: 1_003, user_ns: 250, kernel_ns: 750 }
            .since(CpuTime { total_ns: 3, ..CpuTime::default() });
        assert_eq!((spent.user_ns, spent.kernel_ns), (250.0, 750.0));
        assert!((spent.split_error(1e9) - 0.0137).abs() < 0.001);
    }
}
