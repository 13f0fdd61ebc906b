//! Patterns of names: `*` stands for any characters, `?` for one.

/// Whether a name is of this pattern.
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut place) = (0, 0);
    // Where to go on if it fails: behind the last `*`, with one character more for that.
    let mut retry = None;
    while place < name.len() {
        match pattern.get(at) {
            Some('*') => {
                retry = Some((at + 1, place));
                at += 1;
            }
            Some(&wanted) if wanted == '?' || wanted == name[place] => {
                at += 1;
                place += 1;
            }
            _ => {
                let Some((pattern_at, name_at)) = retry else { return false };
                retry = Some((pattern_at, name_at + 1));
                (at, place) = (pattern_at, name_at + 1);
            }
        }
    }
    pattern[at..].iter().all(|wanted| *wanted == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By the definition.
    fn matches_slowly(pattern: &[char], name: &[char]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some(('*', rest)), None) => matches_slowly(rest, name),
            (Some(('*', rest)), Some((_, tail))) => {
                matches_slowly(rest, name) || matches_slowly(pattern, tail)
            }
            (Some(_), None) => false,
            (Some((wanted, rest)), Some((first, tail))) => {
                (*wanted == '?' || wanted == first) && matches_slowly(rest, tail)
            }
        }
    }

    proptest! {
        #[test]
        fn patterns_match_by_their_definition(pattern in "[ab*?]{0,8}", name in "[abé]{0,8}") {
            let (slow_pattern, slow_name): (Vec<_>, Vec<_>) =
                (pattern.chars().collect(), name.chars().collect());
            prop_assert_eq!(matches(&pattern, &name), matches_slowly(&slow_pattern, &slow_name));
        }
    }
}
