//! `stentor log`: what is in a durable log, and whether it is whole.

use super::print;
use crate::config::values::show_size;
use crate::ids::INBOX_MARK;
use crate::log::{Report, TopicReport, inspect};
use clap::Subcommand;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

pub const HELP: &str = "\
The server of the log must not run. Nothing is written.

Examples:
  stentor log verify /var/lib/stentor      exit code 0: everything is there and whole
  stentor log stats /var/lib/stentor";

#[derive(Subcommand)]
pub enum Command {
    /// Read everything, check every checksum and that no offset is missing
    Verify {
        /// The folder of store.directory
        folder: PathBuf,
    },
    /// Print what each channel has: publications, bytes, offsets, times, epoch
    Stats {
        /// The folder of store.directory
        folder: PathBuf,
    },
}

pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Verify { folder } => {
            let report = inspect(folder)?;
            for note in &report.notes {
                eprintln!("note: {note}");
            }
            for problem in &report.problems {
                eprintln!("{problem}");
            }
            let verdict = match report.problems.len() {
                0 => "ok".to_string(),
                1 => "1 problem".to_string(),
                count => format!("{count} problems"),
            };
            print(&format!("{}: {verdict}; {}\n", folder.display(), summary(&report)))?;
            let whole = report.problems.is_empty();
            Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Stats { folder } => {
            let report = inspect(folder)?;
            let mut text = format!("{}\n", summary(&report));
            for (name, topic) in &report.topics {
                let _ = writeln!(text, "{}", line(name, topic));
            }
            print(&text)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn summary(report: &Report) -> String {
    let records: u64 = report.topics.values().map(|topic| topic.records).sum();
    format!(
        "{} channels, {records} publications, {} in {} files",
        report.topics.len(),
        bytes(report.bytes),
        report.segments
    )
}

/// Fields are separated by tabs; a name has no control characters but the first of an inbox.
fn line(name: &str, topic: &TopicReport) -> String {
    let name = name.replace(INBOX_MARK, &INBOX_MARK.escape_default().to_string());
    let offsets = match topic.offsets() {
        Some((first, last)) => format!("offsets {first}-{last}"),
        None => format!("next offset {}", topic.next),
    };
    let times = match topic.times_ms {
        Some((earliest, latest)) => format!("{} to {}", time(earliest), time(latest)),
        None => "-".to_string(),
    };
    format!(
        "{name}\t{} publications\t{}\t{offsets}\t{times}\tepoch {}",
        topic.records,
        bytes(topic.bytes),
        topic.epoch
    )
}

fn bytes(bytes: u64) -> String {
    let text = show_size(bytes);
    if text.ends_with('B') { text } else { format!("{text} bytes") }
}

fn time(unix_ms: u64) -> String {
    UNIX_EPOCH
        .checked_add(Duration::from_millis(unix_ms))
        // What HTTP can say ends with the year 9999.
        .filter(|_| unix_ms < 253_402_300_800_000)
        .map_or_else(|| format!("{unix_ms} ms"), httpdate::fmt_http_date)
}
