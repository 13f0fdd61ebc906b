//! `stentor publish`: one publication, or one for each line of stdin.

use super::print;
use super::remote::Remote;
use crate::client::{Client, ClientError, TOO_BIG};
use crate::proto::json::{JsonError, Scanner, quote};
use crate::proto::tags::{Tags, TagsError};
use anyhow::{Context, bail};
use clap::Args;
use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Lines read but not yet published.
const LINES_AHEAD_MAX: usize = 16;
/// How long a ping of the server may wait for its answer.
const PING_WAIT_MAX: Duration = Duration::from_secs(1);

pub const HELP: &str = "\
DATA that is JSON is sent as it is: an object, an array, a number, true, \"text in quotes\".
Anything else is sent as a JSON string, except what starts with {, [ or \" and is not JSON: that is
an error.

Examples:
  stentor publish news '{\"title\":\"Hello\"}'             an object
  stentor publish news 'Hello, everybody'              a string
  stentor publish news 42                              a number; '\"42\"' is a string
  tail -f app.log | stentor publish log -              a publication for each line
  stentor publish kept:a 1 --ack                       prints the offset it got
  stentor publish deals 1 --tag plan=pro               for subscribers with a --filter

A line of stdin that cannot be published is reported with its number; the others are published, and
the exit code is 1.";

#[derive(Args)]
pub struct Options {
    /// The channel to publish to
    channel: String,
    /// JSON or text; `-` reads it from stdin, a publication for each line that is not empty
    #[arg(allow_hyphen_values = true)]
    data: String,
    #[command(flatten)]
    remote: Remote,
    /// Print the offset of each publication when it is acknowledged; `-` on a channel without history
    #[arg(long)]
    ack: bool,
    /// Say this of it, for the filters of its subscribers
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = parse_tag)]
    tags: Vec<(String, String)>,
}

fn parse_tag(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected a name, `=` and a value")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Options {
    fn tags(&self) -> Result<Option<Tags>, TagsError> {
        let tags = self.tags.iter().map(|(name, value)| (name.into(), value.into()));
        Tags::of_texts(&tags.collect::<Vec<_>>())
    }

    /// `false`: nobody reads it.
    fn print_ack(&self, offset: Option<u64>) -> io::Result<bool> {
        let line = offset.map_or("-\n".to_owned(), |offset| format!("{offset}\n"));
        if self.ack { print(&line) } else { Ok(true) }
    }
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if options.data == "-" {
        publish_lines(options, BufReader::new(io::stdin()))?;
    } else {
        let (data, tags) = (to_json(&options.data)?, options.tags()?);
        let mut client = options.remote.connect()?;
        let offset = client.publish(&options.channel, &data, tags.as_ref())?;
        options.print_ack(offset)?;
        client.close();
    }
    if io::stderr().is_terminal() {
        eprintln!("published to {}", options.channel);
    }
    Ok(ExitCode::SUCCESS)
}

/// Publishes line by line, and answers the server's pings while none comes. A line that is no text,
/// no data or refused is reported, and the next one has its turn: whoever pipes a log into this
/// wants the rest of it.
fn publish_lines(options: &Options, input: impl BufRead + Send + 'static) -> anyhow::Result<()> {
    let tags = options.tags()?;
    let mut client = options.remote.connect()?;
    let (sender, lines) = mpsc::sync_channel(LINES_AHEAD_MAX);
    // It ends with the input, or with the process.
    thread::spawn(move || input.lines().enumerate().try_for_each(|numbered| sender.send(numbered)));
    let mut failed = 0;
    loop {
        let (index, line) = match lines.recv_timeout(PING_WAIT_MAX) {
            Ok(numbered) => numbered,
            Err(RecvTimeoutError::Timeout) => {
                client.answer_pings()?;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let at_line = || format!("stdin, line {}", index + 1);
        let line = match line {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                return Err(error).with_context(at_line);
            }
            line => line,
        };
        let outcome = match &line {
            Ok(line) if line.trim().is_empty() => continue,
            Ok(line) => match publish_line(&mut client, &options.channel, line, tags.as_ref()) {
                Err(error @ ClientError::Closed { code: TOO_BIG, .. }) => {
                    client = options.remote.connect().with_context(at_line)?;
                    Err(error.to_string())
                }
                outcome => outcome.with_context(at_line)?,
            },
            Err(error) => Err(error.to_string()),
        };
        match outcome {
            Ok(offset) if options.print_ack(offset)? => {}
            Ok(_) => break,
            Err(reason) => {
                eprintln!("{}: {reason}", at_line());
                failed += 1;
            }
        }
    }
    client.close();
    match failed {
        0 => Ok(()),
        1 => bail!("1 line was not published"),
        failed => bail!("{failed} lines were not published"),
    }
}

/// The offset, if it has one. The inner error is about this line alone; the outer one is the end of the
/// connection.
fn publish_line(
    client: &mut Client,
    channel: &str,
    line: &str,
    tags: Option<&Tags>,
) -> Result<Result<Option<u64>, String>, ClientError> {
    let data = match to_json(line) {
        Ok(data) => data,
        Err(error) => return Ok(Err(error.to_string())),
    };
    match client.publish(channel, &data, tags) {
        Ok(offset) => Ok(Ok(offset)),
        Err(ClientError::Refused(refusal)) => Ok(Err(refusal.to_string())),
        Err(error) => Err(error),
    }
}

/// JSON as it is, other text as a JSON string. What starts like JSON and is not is an error.
fn to_json(text: &str) -> anyhow::Result<Cow<'_, str>> {
    let mut scanner = Scanner::new(text);
    match scanner.value() {
        Ok(value) if scanner.rest().trim().is_empty() => Ok(Cow::Borrowed(value)),
        Err(error @ JsonError::TooDeep) => bail!("DATA cannot be published: {error}"),
        Ok(_) | Err(JsonError::Syntax) if text.trim_start().starts_with(['{', '[', '"']) => {
            bail!(
                "DATA starts like JSON, but is not; to send it as text, write it as a JSON string"
            )
        }
        Ok(_) | Err(JsonError::Syntax) => Ok(Cow::Owned(quote(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_json_or_text() {
        for (text, sent) in [
            ("{\"a\": 1}", "{\"a\": 1}"),
            (" [1]\n", "[1]"),
            ("42", "42"),
            ("true", "true"),
            ("\"42\"", "\"42\""),
            ("0123", "\"0123\""),
            ("Hello \"you\"", "\"Hello \\\"you\\\"\""),
            ("", "\"\""),
            ("-", "\"-\""),
        ] {
            assert_eq!(to_json(text).unwrap(), sent);
        }
        let error = to_json("{\"a\": 1,}").unwrap_err().to_string();
        assert!(error.starts_with("DATA starts like JSON, but is not"), "{error}");
    }
}
