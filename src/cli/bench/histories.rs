//! Scenarios that need histories: `durable`, `replay` and `resume`.

use super::{at_least_one, bytes, data_bytes, rate};
use crate::bench::{By, Crew, Probing, durable, replay, resume};
use crate::config::values::parse_duration;
use anyhow::bail;
use clap::{Args, ValueEnum};
use std::time::Duration;

#[derive(Args)]
pub struct Durable {
    /// Connections that publish, to a channel each
    #[arg(long, value_name = "P", default_value_t = 64, value_parser = at_least_one)]
    publishers: usize,
    /// Publications of each publisher that wait for their acknowledgement
    #[arg(long, value_name = "W", default_value_t = 16, value_parser = at_least_one)]
    window: usize,
    /// Of each payload, with its quotes
    #[arg(long, default_value = "256", value_parser = bytes)]
    size: usize,
}

#[derive(Args)]
pub struct Replay {
    /// Publications in the channel
    #[arg(long, value_name = "N", default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(1..))]
    publications: u32,
    /// Publications on their way at a time while the channel is filled
    #[arg(long, value_name = "W", default_value_t = 1024, value_parser = at_least_one)]
    window: usize,
    /// Of each payload, with its quotes
    #[arg(long, default_value = "256", value_parser = bytes)]
    size: usize,
    /// Connections that ping, before and meanwhile, from a thread of their own
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    probes: usize,
    /// Pings a second, of all probes together, in an open loop
    #[arg(long, value_name = "R", default_value = "200", value_parser = rate)]
    probe_rate: f64,
}

#[derive(Args)]
pub struct Resume {
    /// Connections that are cut and come back
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
    clients: usize,
    /// Channels that each client is subscribed to
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = at_least_one)]
    subscriptions: usize,
    /// Channels of all clients together [default: as many as there are clients]
    #[arg(long, value_name = "T", value_parser = at_least_one)]
    topics: Option<usize>,
    /// How they come back
    #[arg(long, value_enum, default_value = "recover")]
    by: Return,
    /// From when they are cut until they come back
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    away: Duration,
    /// Clients coming back at a time
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = at_least_one)]
    concurrency: usize,
    /// Publications a second, to all channels in turn
    #[arg(long, value_name = "R", default_value = "500", value_parser = rate)]
    rate: f64,
    /// Of each payload, with its quotes
    #[arg(long, default_value = "64", value_parser = bytes)]
    size: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Return {
    /// One `restore_session` with all positions
    Session,
    /// A `subscribe` with `recover` for each channel
    Recover,
}

impl Durable {
    pub fn plan(&self) -> anyhow::Result<durable::DurablePlan> {
        let Self { publishers, window, size } = *self;
        Ok(durable::DurablePlan { publishers, window, data_bytes: data_bytes(size)? })
    }
}

impl Replay {
    pub fn plan(&self) -> anyhow::Result<replay::ReplayPlan> {
        let Self { publications, window, size, probes: connections, probe_rate: rate } = *self;
        let probing = Probing { connections, rate };
        Ok(replay::ReplayPlan { publications, window, data_bytes: data_bytes(size)?, probing })
    }
}

impl Resume {
    pub fn plan(&self) -> anyhow::Result<resume::ResumePlan> {
        let Self { clients, subscriptions, away, concurrency, rate, size, .. } = *self;
        let topics = self.topics.unwrap_or(clients.max(subscriptions));
        if subscriptions > topics {
            bail!("--subscriptions {subscriptions}: there are {topics} topics");
        }
        let by = match self.by {
            Return::Session => By::Session,
            Return::Recover => By::Recover,
        };
        let crew = Crew { clients, subscriptions, topics, by };
        let data_bytes = data_bytes(size)?;
        Ok(resume::ResumePlan { crew, data_bytes, rate, away, concurrency })
    }
}
