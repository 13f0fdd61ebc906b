//! By what a client shows that a session is its own.

use std::mem;

/// Connections that a client may name.
const PROOFS_MAX: usize = 4;

/// Secrets of the connections that a client may name to get a session, each once. The newest comes first: that
/// connection has the session, or had it last. The last is the one that was named to get there, for the client may
/// not have heard of the newest. Those between had the session since it was named: what a connection asked before it
/// was gone may come behind what its successor asked, and take the session from that, and the client has heard of
/// none but the successor.
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

    /// `connection` gets the session, for which it has named another: the client has no use for those before that.
    pub fn pass_to(&mut self, connection: u128, named: u128) {
        let before = mem::take(&mut self.0);
        let since = before.iter().take_while(|secret| **secret != named);
        let since = since.filter(|secret| **secret != connection).take(PROOFS_MAX - 2);
        let last = (named != connection).then_some(named);
        self.0 = [connection].into_iter().chain(since.copied()).chain(last).collect();
    }

    /// `connection` was gone when it got the session: no client knows of that.
    pub fn withdraw(&mut self, connection: u128) {
        let left: Box<[u128]> =
            self.0.iter().copied().filter(|secret| *secret != connection).collect();
        if !left.is_empty() {
            self.0 = left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_had_it_since_the_one_that_is_named_may_be_named() {
        let mut proofs = SessionProofs::new(1);
        assert_eq!(proofs.as_list(), [1]);
        proofs.pass_to(2, 1);
        assert_eq!(proofs.as_list(), [2, 1]);
        // Late requests name what was named before.
        proofs.pass_to(3, 1);
        proofs.pass_to(4, 1);
        assert_eq!(proofs.as_list(), [4, 3, 2, 1]);
        proofs.pass_to(5, 1);
        assert_eq!(proofs.as_list(), [5, 4, 3, 1]);
        proofs.withdraw(5);
        assert_eq!(proofs.as_list(), [4, 3, 1]);
        // The client knows of one that is newer.
        proofs.pass_to(6, 3);
        assert_eq!(proofs.as_list(), [6, 4, 3]);
        proofs.pass_to(7, 6);
        assert_eq!(proofs.as_list(), [7, 6]);
        // One that has it again.
        proofs.pass_to(6, 7);
        assert_eq!(proofs.as_list(), [6, 7]);
        proofs.pass_to(6, 6);
        assert_eq!(proofs.as_list(), [6]);
        proofs.withdraw(6);
        assert!(proofs.contain(6), "some connection may always be named");
    }

    #[test]
    fn lists_are_checked() {
        let list = |list: &[u128]| SessionProofs::from_list(list).is_some();
        assert!(list(&[1]) && list(&[4, 3, 2, 1]));
        assert!(!list(&[]) && !list(&[1, 2, 1]) && !list(&[1, 2, 3, 4, 5]));
    }
}
