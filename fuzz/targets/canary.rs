//! A bug planted on purpose: `run` demands that it is found before it believes in any other result.
//!
//! The shortest way to it, `{"":0}`, leads through the scanner's own branches, a byte at a time.
//! Without their coverage there is one chance in 2^44 for each input; with it, it takes seconds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stentor::proto::json::Scanner;

fuzz_target!(|text: &str| {
    let is_bug = |value: &str| value.starts_with('{') && value.contains(':');
    assert!(!Scanner::new(text).value().is_ok_and(is_bug), "the canary");
});
