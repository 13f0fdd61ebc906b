//! `stentor subscribe`: publications as lines.

use super::print;
use crate::client::{Client, DEFAULT_URL, ServerMessage};
use anyhow::bail;
use clap::Args;
use std::process::ExitCode;

pub const HELP: &str = "\
A line is the data of a publication as it was published; with several channels it is CHANNEL, a tab,
DATA. Confirmations and errors go to stderr. Ctrl-C ends it.

Examples:
  stentor subscribe news
  stentor subscribe news --count 1                     wait for one publication
  stentor subscribe chat:lobby chat:games --url ws://127.0.0.1:9000
  stentor subscribe prices --json | jq .data.price";

#[derive(Args)]
pub struct Options {
    /// The channels to listen to
    #[arg(value_name = "CHANNEL", required = true)]
    channels: Vec<String>,
    /// The server
    #[arg(long, default_value = DEFAULT_URL)]
    url: String,
    /// Stop after this many publications [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print the whole message of the server, not only its data
    #[arg(long)]
    json: bool,
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut client = Client::connect(&options.url)?;
    for channel in &options.channels {
        client.subscribe(channel)?;
    }
    let mut left = options.count;
    while left != Some(0) {
        match client.next_message()? {
            ServerMessage::Publication(publication) => {
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
                left = left.map(|left| left - 1);
            }
            ServerMessage::Subscribed { channel } => eprintln!("subscribed to {channel}"),
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
