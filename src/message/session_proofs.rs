//! By what a client shows that a session is its own.

use std::mem;

/// Connections that a client may name. The first has the session or had it last; the second was named to get it
/// there, for the client may not have heard of the first. The others had it before: a request of a connection
/// that is gone may come behind that of its successor and take the session from it, and the client has heard of
/// none but the successor.
const PROOFS_MAX: usize = 4;

/// Secrets of the connections that a client may name to get a session: one to four, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionProofs(Box<[u128]>);

impl SessionProofs {
    /// Of a session on the connection that it began on.
    pub fn new(connection: u128) -> Self {
        Self([connection].into())
    }

    /// As they were listed. `None`: there are none, too many, or some twice.
    pub fn from_list(list: &[u128]) -> Option<Self> {
        let is_new = |(at, secret): (usize, &u128)| !list[..at].contains(secret);
        let fits = (1..=PROOFS_MAX).contains(&list.len()) && list.iter().enumerate().all(is_new);
        fits.then(|| Self(list.into()))
    }

    pub fn as_list(&self) -> &[u128] {
        &self.0
    }

    pub fn contain(&self, secret: u128) -> bool {
        self.0.contains(&secret)
    }

    /// `connection` gets the session, for which it has named another.
    pub fn pass_to(&mut self, connection: u128, named: u128) {
        let before = mem::take(&mut self.0);
        let others = before.iter().filter(|secret| ![connection, named].contains(secret));
        let mut list = vec![connection];
        list.extend((named != connection).then_some(named));
        list.extend(others.take(PROOFS_MAX - list.len()));
        self.0 = list.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_had_it_last_may_be_named() {
        let mut proofs = SessionProofs::new(1);
        assert_eq!(proofs.as_list(), [1]);
        proofs.pass_to(2, 1);
        assert_eq!(proofs.as_list(), [2, 1]);
        // Late requests name what was named before.
        proofs.pass_to(3, 1);
        assert_eq!(proofs.as_list(), [3, 1, 2]);
        proofs.pass_to(4, 1);
        assert_eq!(proofs.as_list(), [4, 1, 3, 2]);
        proofs.pass_to(5, 2);
        assert_eq!(proofs.as_list(), [5, 2, 4, 1]);
        // Back to one that has it again.
        proofs.pass_to(4, 5);
        assert_eq!(proofs.as_list(), [4, 5, 2, 1]);
        assert!(proofs.contain(2) && !proofs.contain(3));
    }

    #[test]
    fn lists_are_checked() {
        let list = |list: &[u128]| SessionProofs::from_list(list).is_some();
        assert!(list(&[1]) && list(&[4, 3, 2, 1]));
        assert!(!list(&[]) && !list(&[1, 2, 1]) && !list(&[1, 2, 3, 4, 5]));
    }
}
