//! The text of a filter: its grammar stands in the module above.

use std::borrow::Cow;

use super::attributes::{Value, is_attribute_name, is_name_byte};
use super::{FILTER_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_VALUES_MAX, FilterError, Test};

/// Words that are no names of attributes in a filter.
const RESERVED: &[&str] = &["in", "not", "true", "false", "null"];

const A_TEST: &str = "expected an attribute, `!` or `(`";
const A_VALUE: &str = "expected a value: a number, true, false or a text in quotes";

/// A filter as it was written.
#[derive(Debug)]
pub enum Expression<'a> {
    Test(&'a str, Test),
    Not(Box<Expression<'a>>),
    All(Vec<Expression<'a>>),
    Any(Vec<Expression<'a>>),
}

/// Reads one filter.
#[derive(Debug)]
pub struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    values: usize,
}

impl<'a> Parser<'a> {
    pub fn new(text: &'a str) -> Result<Self, FilterError> {
        if text.len() > FILTER_BYTES_MAX {
            let message = format!("longer than {FILTER_BYTES_MAX} bytes");
            return Err(FilterError { at: FILTER_BYTES_MAX, message });
        }
        Ok(Self { text, at: 0, depth: 0, values: 0 })
    }

    /// The whole text.
    pub fn filter(mut self) -> Result<Expression<'a>, FilterError> {
        let filter = self.any()?;
        if self.rest().is_empty() {
            Ok(filter)
        } else {
            self.fail("expected `&&`, `||` or the end")
        }
    }

    fn any(&mut self) -> Result<Expression<'a>, FilterError> {
        let mut parts = vec![self.all()?];
        while self.take("||") {
            parts.push(self.all()?);
        }
        Ok(Expression::Any(parts))
    }

    fn all(&mut self) -> Result<Expression<'a>, FilterError> {
        let mut parts = vec![self.one()?];
        while self.take("&&") {
            parts.push(self.one()?);
        }
        Ok(Expression::All(parts))
    }

    fn one(&mut self) -> Result<Expression<'a>, FilterError> {
        if self.depth > FILTER_DEPTH_MAX {
            self.at -= 1;
            return self.fail(format!("nested deeper than {FILTER_DEPTH_MAX}"));
        }
        if self.take("!") {
            self.depth += 1;
            let inner = self.one()?;
            self.depth -= 1;
            return Ok(Expression::Not(Box::new(inner)));
        }
        if self.take("(") {
            self.depth += 1;
            let inner = self.any()?;
            self.depth -= 1;
            if !self.take(")") {
                return self.fail("expected `&&`, `||` or `)`");
            }
            return Ok(inner);
        }
        let name = self.word();
        if !is_attribute_name(name) || RESERVED.contains(&name) {
            return self.fail(A_TEST);
        }
        self.at += name.len();
        self.test(name)
    }

    /// What is asked of an attribute.
    fn test(&mut self, name: &'a str) -> Result<Expression<'a>, FilterError> {
        // The longer of two that begin alike first.
        if self.take("==") {
            return Ok(Expression::Test(name, Test::Equals(self.value()?)));
        }
        if self.take("!=") {
            let test = Test::Equals(self.value()?);
            return Ok(Expression::Not(Box::new(Expression::Test(name, test))));
        }
        for (sign, or_equal) in [("<=", true), ("<", false)] {
            if self.take(sign) {
                return Ok(Expression::Test(name, Test::Less(self.value()?, or_equal)));
            }
        }
        for (sign, or_equal) in [(">=", true), (">", false)] {
            if self.take(sign) {
                return Ok(Expression::Test(name, Test::Greater(self.value()?, or_equal)));
            }
        }
        let negated = self.take_word("not");
        if self.take_word("in") {
            let test = Expression::Test(name, Test::OneOf(self.list()?));
            return Ok(if negated { Expression::Not(Box::new(test)) } else { test });
        }
        if negated {
            return self.fail("expected `in`");
        }
        self.count_value()?;
        Ok(Expression::Test(name, Test::Equals(Value::Bool(true))))
    }

    fn list(&mut self) -> Result<Box<[Value]>, FilterError> {
        if !self.take("[") {
            return self.fail("expected `[`");
        }
        let mut values = vec![self.value()?];
        while self.take(",") {
            values.push(self.value()?);
        }
        if self.take("]") { Ok(values.into()) } else { self.fail("expected `,` or `]`") }
    }

    fn value(&mut self) -> Result<Value, FilterError> {
        self.count_value()?;
        let rest = self.rest();
        let length = match rest.bytes().next() {
            Some(quote @ (b'"' | b'\'')) => match text_length(rest, quote) {
                Some(length) => length,
                None => return self.fail("the text does not end"),
            },
            _ => rest
                .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.'))
                .unwrap_or(rest.len()),
        };
        let (literal, _) = rest.split_at(length);
        let value = match literal.strip_prefix('\'') {
            Some(text) => text.strip_suffix('\'').map(Value::text),
            None => json_value(literal),
        };
        let Some(value) = value else { return self.fail(A_VALUE) };
        self.at += length;
        Ok(value)
    }

    fn count_value(&mut self) -> Result<(), FilterError> {
        self.values += 1;
        if self.values > FILTER_VALUES_MAX {
            return self.fail(format!("more than {FILTER_VALUES_MAX} values"));
        }
        Ok(())
    }

    /// What is left, from the next thing that is not white space on.
    fn rest(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.at = self.text.len() - rest.len();
        rest
    }

    fn take(&mut self, sign: &str) -> bool {
        let is_next = self.rest().starts_with(sign);
        self.at += if is_next { sign.len() } else { 0 };
        is_next
    }

    fn take_word(&mut self, wanted: &str) -> bool {
        let is_next = self.word() == wanted;
        self.at += if is_next { wanted.len() } else { 0 };
        is_next
    }

    /// The word that comes next, which may be empty.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let length = rest.bytes().take_while(|byte| is_name_byte(*byte)).count();
        rest.get(..length).unwrap_or_default()
    }

    fn fail<T>(&mut self, message: impl Into<Cow<'static, str>>) -> Result<T, FilterError> {
        self.rest();
        Err(FilterError { at: self.at, message: message.into().into_owned() })
    }
}

/// Bytes of the text in quotes that `rest` begins with, quotes included. Between double ones a backslash
/// takes what follows with it.
fn text_length(rest: &str, quote: u8) -> Option<usize> {
    let mut bytes = rest.bytes().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' if quote == b'"' => drop(bytes.next()),
            byte if byte == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn json_value(text: &str) -> Option<Value> {
    Value::of_json(&serde_json::from_str(text).ok()?)
}
