//! Whom a publication is for, and which publications a subscription is for: a predicate over the attributes of
//! a receiver, or over the tags of a publication, compiled once and asked of each.
//!
//! ```text
//! filter  = all { "||" all }                     all   = one { "&&" one }
//! one     = "!" one | "(" filter ")" | NAME [ test ]
//! test    = ( "==" | "!=" | "<" | "<=" | ">" | ">=" ) value | [ "not" ] "in" "[" value { "," value } "]"
//! value   = NUMBER | "true" | "false" | "STRING" | 'STRING'
//! ```
//!
//! A NAME alone asks whether the attribute is `true`. Values of two kinds are not equal, and neither is less
//! than the other. Of an attribute that is not there every test is false, but for `!=` and `not in`,
//! which are the opposites of `==` and `in`.

mod attributes;
mod parser;

pub use attributes::{
    ATTRIBUTE_NAME_BYTES_MAX, ATTRIBUTES_MAX, Attributes, Interner, SHOWN_BYTES_MAX,
    VALUE_BYTES_MAX, Value, is_attribute_name,
};

use std::cmp::Ordering;
use std::fmt;

use parser::{Expression, Parser};

/// Longest text of a filter, in bytes.
pub const FILTER_BYTES_MAX: usize = 1024;

/// Values that one filter compares with, those of lists included: what it may cost for each receiver.
pub const FILTER_VALUES_MAX: usize = 128;

/// How deep parentheses and negations may nest.
pub const FILTER_DEPTH_MAX: usize = 16;

/// A predicate that is ready to be asked.
#[derive(Debug, PartialEq, Eq)]
pub struct Filter {
    /// Each leads to one before it, or to an end: there is no way round.
    steps: Box<[Step]>,
    weight: usize,
    /// As it was written.
    text: Box<str>,
}

#[derive(Debug, PartialEq, Eq)]
struct Step {
    attribute: Box<str>,
    test: Test,
    /// Where it goes on, by the outcome.
    yes: Next,
    no: Next,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Step(u8),
    Accept,
    Reject,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Equals(Value),
    /// How the attribute stands to the value: `<`, and then `==` or not; else `>` likewise.
    Less(Value, bool),
    Greater(Value, bool),
    OneOf(Box<[Value]>),
}

/// Why a text is no filter: for people, with the place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    /// In bytes, from the beginning.
    pub at: usize,
    message: String,
}

impl Filter {
    /// Compiles a filter.
    ///
    /// # Errors
    ///
    /// It is longer than [`FILTER_BYTES_MAX`], nests deeper than [`FILTER_DEPTH_MAX`], compares with more than
    /// [`FILTER_VALUES_MAX`] values, or is not as the grammar says.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let expression = Parser::new(text)?.filter()?;
        let mut steps = Vec::new();
        compile(expression, Next::Accept, Next::Reject, &mut steps);
        let weight = steps.iter().map(Step::weight).sum::<usize>() + text.len();
        Ok(Self { steps: steps.into(), weight, text: text.into() })
    }

    /// Whether a receiver with these attributes, or a publication with these tags, is meant. Allocates nothing; the cost is bounded by
    /// [`Filter::cost`].
    pub fn matches(&self, attributes: &Attributes) -> bool {
        let mut at = self.steps.len() - 1;
        loop {
            // Where they lead is below where they stand.
            let Some(Step { attribute, test, yes, no }) = self.steps.get(at) else { return false };
            let passes = attributes.get(attribute).is_some_and(|value| test.passes(value));
            match if passes { yes } else { no } {
                Next::Step(next) => at = usize::from(*next),
                Next::Accept => return true,
                Next::Reject => return false,
            }
        }
    }

    /// As it was written: the same again, compiled.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes that it takes, about: up to some 20 KiB.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Comparisons that a receiver costs at most.
    pub fn cost(&self) -> usize {
        self.steps.iter().map(|step| step.test.values().len()).sum()
    }
}

/// Puts the steps of an expression behind those it leads to. Returns where it begins.
fn compile(expression: Expression<'_>, yes: Next, no: Next, steps: &mut Vec<Step>) -> Next {
    match expression {
        Expression::Test(attribute, test) => {
            steps.push(Step { attribute: attribute.into(), test, yes, no });
            // No more than values, of which there are few; see `Parser`.
            Next::Step((steps.len() - 1) as u8)
        }
        Expression::Not(inner) => compile(*inner, no, yes, steps),
        Expression::All(parts) => {
            parts.into_iter().rev().fold(yes, |next, part| compile(part, next, no, steps))
        }
        Expression::Any(parts) => {
            parts.into_iter().rev().fold(no, |next, part| compile(part, yes, next, steps))
        }
    }
}

impl Step {
    fn weight(&self) -> usize {
        let texts = self.test.values().iter().map(|value| match value {
            Value::Text(text) => size_of::<[usize; 2]>() + text.len(),
            Value::Number(_) | Value::Bool(_) => 0,
        });
        let listed = match &self.test {
            Test::OneOf(values) => size_of_val(&**values),
            Test::Equals(_) | Test::Less(..) | Test::Greater(..) => 0,
        };
        size_of::<Self>() + self.attribute.len() + listed + texts.sum::<usize>()
    }
}

impl Test {
    fn passes(&self, value: &Value) -> bool {
        match self {
            Self::Equals(wanted) => value == wanted,
            Self::OneOf(wanted) => wanted.contains(value),
            Self::Less(bound, or_equal) => match value.compare(bound) {
                Some(Ordering::Less) => true,
                Some(Ordering::Equal) => *or_equal,
                _ => false,
            },
            Self::Greater(bound, or_equal) => match value.compare(bound) {
                Some(Ordering::Greater) => true,
                Some(Ordering::Equal) => *or_equal,
                _ => false,
            },
        }
    }

    fn values(&self) -> &[Value] {
        match self {
            Self::OneOf(values) => values,
            Self::Equals(value) | Self::Less(value, _) | Self::Greater(value, _) => {
                std::slice::from_ref(value)
            }
        }
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.message, self.at)
    }
}

impl std::error::Error for FilterError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{
        BoxedStrategy, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
    };

    fn attributes(text: &str) -> Attributes {
        Attributes::parse(text, &mut Interner::default()).unwrap()
    }

    fn asked(filter: &str, of: &str) -> bool {
        Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}")).matches(&if of
            .is_empty()
        {
            Attributes::default()
        } else {
            attributes(of)
        })
    }

    #[test]
    fn a_filter_is_asked_of_attributes() {
        let alice = "plan=pro,region=eu,level=7,beta=true";
        for (filter, expected) in [
            (r#"plan == "pro" && region in ["eu","us"]"#, true),
            ("plan=='pro'&&region in['us']", false),
            ("plan != 'free'", true),
            ("plan != 'pro'", false),
            ("level == 7", true),
            ("level == 7.0e0", true),
            ("level == '7'", false),
            ("level > 6 && level < 8 && level >= 7 && level <= 7", true),
            ("level > 7 || level < 7", false),
            ("plan > 'pa' && plan < 'q'", true),
            ("plan > 5 || plan < 5 || plan >= 5 || plan <= 5", false),
            ("beta", true),
            ("!beta", false),
            ("!!beta", true),
            ("plan", false),
            ("beta == true && beta != false", true),
            ("region not in ['us', 'asia']", true),
            ("region not in ['us', 'eu']", false),
            ("!(plan == 'pro' || beta) || level in [1, 7]", true),
            // && binds closer.
            ("beta || beta && !beta", true),
            ("(beta || beta) && !beta", false),
            // What is not there.
            ("age == 7", false),
            ("age > 7 || age < 7 || age in [7] || age", false),
            ("age != 7 && age not in [7] && !(age > 7)", true),
            (r#"plan == "p\u0072o""#, true),
        ] {
            assert_eq!(asked(filter, alice), expected, "{filter}");
        }
        assert!(!asked("plan == 'pro'", ""));
        assert!(asked("plan != 'pro'", ""));
    }

    #[test]
    fn what_is_no_filter_is_told_with_its_place() {
        let deep = format!("{}a", "(".repeat(17));
        let long = format!("a == '{}'", "x".repeat(1024));
        let many = format!("a in [{}]", vec!["1"; 129].join(","));
        for (text, expected) in [
            ("", "expected an attribute, `!` or `(` at byte 0"),
            ("  ", "expected an attribute, `!` or `(` at byte 2"),
            ("a ==", "expected a value: a number, true, false or a text in quotes at byte 4"),
            ("a == b", "expected a value: a number, true, false or a text in quotes at byte 5"),
            ("a == null", "expected a value: a number, true, false or a text in quotes at byte 5"),
            ("a == 01", "expected a value: a number, true, false or a text in quotes at byte 5"),
            ("a == 1e999", "expected a value: a number, true, false or a text in quotes at byte 5"),
            ("a == 'b", "the text does not end at byte 5"),
            (
                r#"a == "\q""#,
                "expected a value: a number, true, false or a text in quotes at byte 5",
            ),
            ("a = 1", "expected `&&`, `||` or the end at byte 2"),
            ("a & b", "expected `&&`, `||` or the end at byte 2"),
            ("a b", "expected `&&`, `||` or the end at byte 2"),
            ("(a", "expected `&&`, `||` or `)` at byte 2"),
            ("a)", "expected `&&`, `||` or the end at byte 1"),
            ("a in 'x'", "expected `[` at byte 5"),
            ("a in []", "expected a value: a number, true, false or a text in quotes at byte 6"),
            ("a in [1", "expected `,` or `]` at byte 7"),
            ("a not 5", "expected `in` at byte 6"),
            ("in == 5", "expected an attribute, `!` or `(` at byte 0"),
            ("'a' == 5", "expected an attribute, `!` or `(` at byte 0"),
            ("1 == a", "expected an attribute, `!` or `(` at byte 0"),
            (&deep, "nested deeper than 16 at byte 16"),
            (&long, "longer than 1024 bytes at byte 1024"),
            (&many, "more than 128 values at byte 262"),
        ] {
            assert_eq!(Filter::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_filter_may_be_as_large_as_it_may() {
        let tests: Vec<_> = (0..128).map(|number| format!("a=={number}")).collect();
        let filter = Filter::parse(&tests.join("||")).unwrap();
        assert_eq!((filter.steps.len(), filter.cost()), (128, 128));
        assert!((128 * 48..20 << 10).contains(&filter.weight()), "{}", filter.weight());
        let texts = vec!["'abc'"; 128].join(",");
        let list = Filter::parse(&format!("a in [{texts}]")).unwrap();
        assert!((128 * 40..20 << 10).contains(&list.weight()), "{}", list.weight());
        assert!(filter.matches(&attributes("a=0")) && filter.matches(&attributes("a=127")));
        assert!(!filter.matches(&attributes("a=128")));
    }

    /// A filter as text, and what it says of `a` and `b`, which are 0 to 2 or (3) not there.
    fn any_filter() -> BoxedStrategy<(String, Vec<bool>)> {
        let all = || (0..4u8).flat_map(|a| (0..4u8).map(move |b| (a, b)));
        let leaf = (any::<bool>(), 0..3u8, 0..5u8).prop_map(move |(is_a, value, kind)| {
            let name = if is_a { "a" } else { "b" };
            let text = match kind {
                0 => format!("{name} == {value}"),
                1 => format!("{name} != {value}"),
                2 => format!("{name} < {value}"),
                3 => format!("{name} in [{value}, 1]"),
                _ => format!("{name} not in [{value}]"),
            };
            let holds = move |(a, b)| {
                let own: u8 = if is_a { a } else { b };
                let there = own < 3;
                match kind {
                    0 => there && own == value,
                    1 => !there || own != value,
                    2 => there && own < value,
                    3 => there && (own == value || own == 1),
                    _ => !there || own != value,
                }
            };
            (text, all().map(holds).collect::<Vec<bool>>())
        });
        let tree = leaf.boxed().prop_recursive(6, 40, 4, |inner| {
            let many = prop::collection::vec(inner.clone(), 1..4);
            prop_oneof![
                inner.prop_map(|(text, table)| {
                    (format!("!({text})"), table.iter().map(|holds| !holds).collect())
                }),
                (many, any::<bool>()).prop_map(|(parts, and)| {
                    let texts: Vec<_> = parts.iter().map(|(text, _)| format!("({text})")).collect();
                    let join = |at: usize| match and {
                        true => parts.iter().all(|(_, table)| table[at]),
                        false => parts.iter().any(|(_, table)| table[at]),
                    };
                    let text = texts.join(if and { " && " } else { "||" });
                    (text, (0..16).map(join).collect())
                }),
            ]
            .boxed()
        });
        tree.boxed()
    }

    proptest! {
        #[test]
        fn a_filter_is_what_its_text_says((text, table) in any_filter()) {
            let Ok(filter) = Filter::parse(&text) else {
                // Only for its size.
                prop_assert!(text.len() > FILTER_BYTES_MAX || text.contains("(((((((("));
                return Ok(());
            };
            let cases = (0..4u8).flat_map(|a| (0..4u8).map(move |b| (a, b)));
            for ((a, b), holds) in cases.zip(table) {
                let mut words = Vec::new();
                if a < 3 { words.push(format!("a={a}")); }
                if b < 3 { words.push(format!("b={b}")); }
                let of = words.join(",");
                let attributes =
                    if of.is_empty() { Attributes::default() } else { attributes(&of) };
                prop_assert_eq!(filter.matches(&attributes), holds, "{} of {}", &text, of);
            }
        }

        #[test]
        fn any_text_is_a_filter_or_not(text in "[ab0-9.'\" !&|()<>=,\\[\\]\\\\intoru]{0,60}|\\PC{0,40}") {
            if let Ok(filter) = Filter::parse(&text) {
                filter.matches(&attributes("a=1,b=x"));
                prop_assert!((1..=FILTER_VALUES_MAX).contains(&filter.cost()));
            }
        }
    }
}
