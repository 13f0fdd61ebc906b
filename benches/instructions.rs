//! Instructions of the hot path, counted by callgrind: the same on a busy machine as on a quiet one.
//!
//!     cargo bench --bench instructions                  counts, beside those stated
//!     cargo bench --bench instructions -- --state       states them anew
//!
//! Other processors and compilers count differently, so a difference is printed and is no failure.
//!
//! This program runs itself under valgrind, each case a few and then more times: the difference is what
//! one more costs. Valgrind has no AVX-512, so code chosen at run time may be another than natively.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::{Command, ExitCode};
use support::cases::CASES;

const STATED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
/// How often a case runs in the first and in the second run.
const FEW: u64 = 20;
const MORE: u64 = 120;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [run, name, count] = &arguments[..]
        && run == "--run"
    {
        repeat(name, count.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    let given = |flag: &str| arguments.iter().any(|argument| argument == flag);
    // `cargo bench` says so; `cargo test --all-targets` does not, and here is nothing to test.
    if given("--test") || !given("--bench") {
        return ExitCode::SUCCESS;
    }
    if !has_valgrind() {
        eprintln!("error: valgrind counts the instructions; install Debian's package valgrind");
        return ExitCode::FAILURE;
    }
    let stated = stated();
    let mut text = String::new();
    println!("{:28} {:>12} {:>12}", "instructions", "now", "stated");
    for (name, _) in CASES {
        let each = (count(name, MORE) - count(name, FEW)) / (MORE - FEW);
        let before = stated.get(name).copied();
        let change = before.map_or(String::new(), |before| {
            format!("{:+.1} %", (each as f64 / before as f64 - 1.0) * 100.0)
        });
        println!("{name:28} {each:>12} {:>12} {change}", before.unwrap_or(0));
        writeln!(text, "{name} {each}").expect("a string takes all");
    }
    if given("--state") {
        fs::write(STATED, text).expect("the file can be written");
    }
    ExitCode::SUCCESS
}

fn repeat(name: &str, count: u64) {
    let (_, prepare) = CASES.iter().find(|(known, _)| *known == name).expect("a known case");
    let mut case = prepare();
    for _ in 0..count {
        case();
    }
}

fn has_valgrind() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok()
}

/// Instructions of a run of `repeats`.
fn count(name: &str, repeats: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("this program has a path"))
        .args(["--run", name, &repeats.to_string()])
        .output()
        .expect("valgrind runs");
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find_map(|line| line.split_once("Collected :"));
    let number = line.and_then(|(_, number)| number.trim().parse().ok());
    number.unwrap_or_else(|| panic!("valgrind did not count {name}:\n{text}"))
}

fn stated() -> BTreeMap<String, u64> {
    let text = fs::read_to_string(STATED).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.filter_map(|(name, count)| Some((name.to_string(), count.parse().ok()?))).collect()
}
