//! The front of an input: in which pieces the rest of it arrives.

/// An input taken apart.
///
/// The first byte holds, in its 3 low bits, the number of sizes, which follow, a byte each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<'a> {
    /// The 5 high bits of the first byte, for the target.
    pub mode: u8,
    /// Sizes of the pieces in bytes, each at least 1, to be used over and over. Never empty.
    pub sizes: Vec<usize>,
    pub body: &'a [u8],
}

impl<'a> Plan<'a> {
    /// `None` if the input is too short to have a body.
    pub fn read(input: &'a [u8]) -> Option<Self> {
        let (&first, rest) = input.split_first()?;
        let (sizes, body) = rest.split_at_checked(usize::from(first & 7))?;
        let mut sizes: Vec<usize> = sizes.iter().map(|&size| usize::from(size) + 1).collect();
        if sizes.is_empty() {
            sizes.push(2);
        }
        Some(Self { mode: first >> 3, sizes, body })
    }
}

/// How much of `len` bytes has arrived after each piece.
pub fn ends(len: usize, sizes: &[usize]) -> impl Iterator<Item = usize> {
    let mut sizes = sizes.iter().cycle();
    let mut end = 0;
    std::iter::from_fn(move || {
        let size = sizes.next().filter(|_| end < len)?;
        end = end.saturating_add(*size).min(len);
        Some(end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_are_the_sizes() {
        let plan = Plan::read(b"\x0a\x00\x04body").unwrap();
        assert_eq!(plan, Plan { mode: 1, sizes: vec![1, 5], body: b"body" });
        assert_eq!(Plan::read(b"\x00").unwrap().sizes, [2]);
        assert_eq!(Plan::read(b""), None);
        assert_eq!(Plan::read(b"\x03ab"), None);
    }

    #[test]
    fn pieces_cover_everything() {
        assert_eq!(ends(7, &[1, 3]).collect::<Vec<_>>(), [1, 4, 5, 7]);
        assert_eq!(ends(7, &[usize::MAX]).collect::<Vec<_>>(), [7]);
        assert_eq!(ends(0, &[1]).next(), None);
    }
}
