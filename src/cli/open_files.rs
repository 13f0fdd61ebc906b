//! The limit on open files, which is the limit on connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt;

/// The soft limit, as it was found and as it is now.
#[derive(Debug, Clone, Copy)]
pub struct OpenFiles {
    pub before: u64,
    pub now: u64,
}

/// Raises the soft limit to the hard one, which needs no privilege. If the kernel refuses
/// nevertheless, the limit stays as it was.
pub fn raise() -> OpenFiles {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    // `None` is no limit.
    let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    let before = number(current);
    OpenFiles { before, now: if raised { number(maximum) } else { before } }
}

impl fmt::Display for OpenFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.now {
            u64::MAX => f.write_str("open files unlimited")?,
            now => write!(f, "open files {now}")?,
        }
        if self.now == self.before { Ok(()) } else { write!(f, " (raised from {})", self.before) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_says_whether_the_limit_was_raised() {
        let show = |before, now| OpenFiles { before, now }.to_string();
        assert_eq!(show(1024, 20000), "open files 20000 (raised from 1024)");
        assert_eq!(show(1024, 1024), "open files 1024");
        assert_eq!(show(1024, u64::MAX), "open files unlimited (raised from 1024)");
    }

    #[test]
    fn raising_never_lowers() {
        let OpenFiles { before, now } = raise();
        assert!(now >= before);
    }
}
