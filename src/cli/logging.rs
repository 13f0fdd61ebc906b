//! The log: lines on stderr, written by a thread of their own.

use crate::config::{Log, LogFormat, LogLevel};
use std::env;
use std::io::{self, IsTerminal};
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

/// Lines waiting to be written; more are dropped. A blocked terminal never stops a shard.
const WAITING_LINES_MAX: usize = 4096;

/// Starts the log of this process. It ends, written to the last line, when the guard is dropped.
pub fn start(log: Log) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_LINES_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(io::stderr());
    let terminal = io::stderr().is_terminal();
    let colours = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt()
        .with_max_level(match log.level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        })
        .with_writer(writer);
    let text = match log.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    if text {
        lines.with_ansi(colours).init();
    } else {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    }
    guard
}
