//! `stentor subscribe`: publications as lines.

use super::print;
use super::remote::Remote;
use crate::client::{Begin, ServerMessage};
use crate::filter::{Filter, FilterError};
use anyhow::bail;
use clap::Args;
use std::collections::HashMap;
use std::process::ExitCode;

pub const HELP: &str = "\
A line is the data of a publication as it was published; with several channels it is CHANNEL, a tab,
DATA. An event or a chat message is a line as it came. Confirmations and errors go to stderr. Ctrl-C ends it. On a channel of level acked each line is
acknowledged when it is printed; one that is sent again all the same is printed once.

Examples:
  stentor subscribe news
  stentor subscribe news --count 1                     wait for one publication
  stentor subscribe chat:lobby chat:games --url ws://127.0.0.1:9000
  stentor subscribe prices --json | jq .data.price
  stentor subscribe chat:lobby --since start           what the channel keeps, then what comes
  stentor subscribe deals --filter 'level > 3'        of what has tags, that alone
  stentor subscribe chat:lobby --recover 5d0e6fa1b2c3d4e5:17";

#[derive(Args)]
pub struct Options {
    /// The channels to listen to
    #[arg(value_name = "CHANNEL", required = true)]
    channels: Vec<String>,
    #[command(flatten)]
    remote: Remote,
    /// Stop after this many publications [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print the whole message of the server, not only its data
    #[arg(long)]
    json: bool,
    /// Begin in the past of a channel with history: `start`, behind an offset, or at a Unix time in
    /// milliseconds
    #[arg(long, value_name = "PLACE", value_parser = parse_since)]
    since: Option<Begin>,
    /// Go on behind a position that was reached before: the epoch that a subscription prints when it
    /// begins, and the last offset that was read
    #[arg(long, value_name = "EPOCH:OFFSET", value_parser = parse_recover, conflicts_with = "since")]
    recover: Option<Begin>,
    /// Only publications whose tags this is true of
    #[arg(long, value_name = "FILTER", value_parser = parse_filter)]
    filter: Option<String>,
}

fn parse_filter(text: &str) -> Result<String, FilterError> {
    Filter::parse(text).map(|_| text.to_owned())
}

fn parse_since(text: &str) -> Result<Begin, String> {
    if text == "start" {
        return Ok(Begin::Oldest);
    }
    text.parse().map(Begin::Since).map_err(|_| "expected `start` or a whole number".to_owned())
}

fn parse_recover(text: &str) -> Result<Begin, String> {
    let is_epoch =
        |epoch: &str| epoch.len() == 16 && epoch.bytes().all(|it| it.is_ascii_hexdigit());
    let parts = text.split_once(':').filter(|(epoch, _)| is_epoch(epoch));
    let parts = parts.and_then(|(epoch, offset)| Some((epoch, offset.parse().ok()?)));
    let (epoch, offset) = parts.ok_or(
        "expected an epoch of 16 hex digits, a colon and an offset, as a subscription prints them",
    )?;
    Ok(Begin::Recover { epoch: epoch.to_owned(), offset })
}

/// Why a subscription does not begin where it was asked to.
fn in_words(reason: &str) -> &str {
    match reason {
        "epoch" => "the channel has begun anew since then, with other offsets",
        "trimmed" => "the channel does not keep all of what came behind that any more",
        "future" => "the channel has not come that far",
        "no_history" => "the channel keeps no history",
        "unreadable" => "some of what came behind that cannot be read from the server's disk",
        other => other,
    }
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut client = options.remote.connect()?;
    let begin = options.recover.as_ref().or(options.since.as_ref()).unwrap_or(&Begin::Now);
    for channel in &options.channels {
        client.subscribe(channel, begin, options.filter.as_deref())?;
    }
    let mut left = options.count;
    let mut printed: HashMap<String, u64> = HashMap::new();
    while left != Some(0) {
        match client.next_message()? {
            ServerMessage::Publication(publication) => {
                if let (Some(id), Some(offset)) = (&publication.message_id, publication.offset) {
                    let last = printed.entry(publication.channel.clone()).or_default();
                    if offset <= *last {
                        client.acknowledge(id)?;
                        continue;
                    }
                    *last = offset;
                }
                let line = if options.json {
                    format!("{}\n", publication.json())
                } else if options.channels.len() > 1 {
                    format!("{}\t{}\n", publication.channel, publication.data())
                } else {
                    format!("{}\n", publication.data())
                };
                if !print(&line)? {
                    break;
                }
                if let Some(id) = &publication.message_id {
                    client.acknowledge(id)?;
                }
                left = left.map(|left| left - 1);
            }
            ServerMessage::Message(message) => {
                if !print(&format!("{message}\n"))? {
                    break;
                }
                left = left.map(|left| left - 1);
            }
            ServerMessage::Subscribed { channel, position, not_recovered } => {
                let at = position.map(|position| format!(" at {position}")).unwrap_or_default();
                match not_recovered.as_deref() {
                    None => eprintln!("subscribed to {channel}{at}"),
                    Some(reason) => eprintln!(
                        "subscribed to {channel}{at}, not from where it was asked: {}",
                        in_words(reason)
                    ),
                }
            }
            ServerMessage::Gap { channel, from, to } => {
                eprintln!("{channel} does not keep the publications from {from} to {to} any more");
            }
            ServerMessage::Refused(refusal) => match &refusal.channel {
                // An empty name in quotes, else nobody sees it.
                Some(channel) if channel.is_empty() => {
                    bail!("cannot subscribe to \"\": {refusal}")
                }
                Some(channel) => bail!("cannot subscribe to {channel}: {refusal}"),
                None => bail!("{refusal}"),
            },
            ServerMessage::Unsubscribed { .. }
            | ServerMessage::Acknowledged { .. }
            | ServerMessage::Other(_) => {}
        }
    }
    client.close();
    Ok(ExitCode::SUCCESS)
}
