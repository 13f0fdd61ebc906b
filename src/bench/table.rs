//! A summary for people at a terminal.

use super::summary::{Figure, Latency, Summary};
use std::fmt;

const NAME_WIDTH: usize = 34;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.scenario, self.url)?;
        for (name, value) in &self.parameters {
            write!(f, "  {name}={value}")?;
        }
        writeln!(f, "\n")?;
        for Figure { name, value, unit } in &self.figures {
            writeln!(f, "  {:NAME_WIDTH$} {:>14} {unit}", name.replace('_', " "), digits(*value))?;
        }
        if let Some(first) = self.latencies.first() {
            write!(f, "\n  {:20}", "")?;
            for (percentile, _) in &first.percentiles {
                let head = match percentile {
                    100.0 => "max".to_string(),
                    percentile => format!("p{percentile}"),
                };
                write!(f, " {head:>9}")?;
            }
            writeln!(f)?;
        }
        for Latency { name, percentiles, .. } in &self.latencies {
            write!(f, "  {name:20}")?;
            for (_, nanoseconds) in percentiles {
                write!(f, " {:>9}", span(*nanoseconds))?;
            }
            writeln!(f)?;
        }
        writeln!(f)?;
        if self.is_faultless() {
            writeln!(f, "  nothing lost, repeated, out of order or changed")?;
        }
        for (name, count) in self.faults.by_name() {
            if count > 0 {
                writeln!(f, "  FAULT: {count} {name}")?;
            }
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }
}

/// With as many decimals as mean something.
pub(super) fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_string(),
        small if small < 10.0 => format!("{value:.4}"),
        small if small < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A time in the unit that suits it.
pub(super) fn span(nanoseconds: u64) -> String {
    let value = nanoseconds as f64;
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{:.1} µs", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::super::meter::histogram;
    use super::*;

    #[test]
    fn a_table_has_figures_latencies_and_faults() {
        let mut summary = Summary::new("fanout", "ws://127.0.0.1:1");
        summary.parameter("size", 64);
        summary.figure("cpu_per_delivery", 3.25, "µs");
        summary.figure("nothing_by_nothing", f64::NAN, "µs");
        let mut latency = histogram();
        latency.record(1500).unwrap();
        summary.latency("latency", &latency);
        assert!(summary.to_string().contains("nothing lost"));
        summary.faults.lost = 2;
        let text = summary.to_string();
        for words in ["size=64", "cpu per delivery", "3.2500 µs", "p99.99", "1.5 µs", "2 lost"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("by nothing"));
        let json: serde_json::Value = serde_json::from_str(&summary.to_json()).unwrap();
        assert_eq!(json["faults"]["lost"], 2);
        assert_eq!(json["figures"][0]["value"], 3.25);
    }
}
