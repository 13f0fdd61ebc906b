//! `stentor bench`: load on a server, this one or another, and what it costs.

mod histories;

use super::{open_files, print};
use crate::bench::{
    self, BroadcastPlan, Clock, Conditions, DATA_BYTES_MIN, Dialect, FleetOptions, Pace, Probing,
    ServerProcess, Shape, Summary, Target, connect, durable, echo, fanout, idle, replay, report,
    resume, slow,
};
use crate::client::DEFAULT_URL;
use crate::config::values::{parse_duration, parse_size};
use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use histories::{Durable, Replay, Resume};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

pub const HELP: &str = "\
Every payload carries its publisher, number, time and a checksum: what is lost, repeated, out of order
or changed is counted, and ends in exit code 1. Give the client a core of its own: the server's CPU
time holds on a busy machine, rates and latencies do not.

Examples:
  stentor bench fanout --subscribers 1000 --window 1 --server-pid 4711
  stentor bench fanout --subscribers 100 --rate 5000 --report out
  stentor bench many --topics 5000 --connections 10000 --publishers 10
  stentor bench echo --connections 100 --size 64
  stentor bench connect --duration 10s
  stentor bench connect --storm 10000
  stentor bench idle --connections 15000 --server-pid 4711 --duration 1m
  stentor bench slow --subscribers 100 --stopped 10 --size 4KiB --rate 300
  stentor bench fanout --subscribers 1000 --namespace kept
  stentor bench durable --publishers 64 --window 16 --namespace safe
  stentor bench replay --publications 1000000 --namespace safe
  stentor bench resume --clients 1000 --subscriptions 20 --by session --namespace kept
  stentor bench fanout --target raw --url ws://127.0.0.1:9001

`stentor bench SCENARIO --help` says more about each.";

#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    scenario: Scenario,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum Scenario {
    /// Few topics, many subscribers: what a delivery costs
    Fanout(Fanout),
    /// Thousands of small topics
    Many(Many),
    /// Ping round trips
    Echo(Echo),
    /// Handshakes a second, or everybody coming back at once
    Connect(Connect),
    /// Memory and CPU of connections that only stay
    Idle(Idle),
    /// Some readers stop: what the others notice, and what becomes of them
    Slow(Slow),
    /// Publications that are acknowledged: how many, and after how long
    Durable(Durable),
    /// One reader takes all of a history: how fast, and what others notice
    Replay(Replay),
    /// Clients with many subscriptions are cut at once and come back
    Resume(Resume),
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Stentor's protocol
    Stentor,
    /// `+TOPIC` subscribes, `=TOPIC BODY` publishes, anything else is sent back: benches/floor
    Raw,
}

#[derive(Args)]
struct Common {
    /// The server
    #[arg(long, global = true, default_value = DEFAULT_URL)]
    url: String,
    /// What the server speaks
    #[arg(long, global = true, value_enum, default_value = "stentor")]
    target: Kind,
    /// Subscribes to {channel}, whose number is {topic}
    #[arg(long, global = true, value_name = "MESSAGE")]
    subscribe_template: Option<String>,
    /// Publishes {data}, a JSON string with its quotes, to {channel}
    #[arg(long, global = true, value_name = "MESSAGE")]
    publish_template: Option<String>,
    /// Is answered by a message with the same {data}
    #[arg(long, global = true, value_name = "MESSAGE")]
    echo_template: Option<String>,
    /// Is answered by one message
    #[arg(long, global = true, value_name = "MESSAGE")]
    ping_template: Option<String>,
    /// The server does not answer subscriptions
    #[arg(long, global = true)]
    no_confirm: bool,
    /// Of all channels: they are called NAME:…; `durable`, `replay` and `resume` need one with a history
    #[arg(long, global = true, value_name = "NAME", value_parser = namespace)]
    namespace: Option<String>,
    /// Tell what this process spends: CPU time and memory
    #[arg(long, global = true, value_name = "PID")]
    server_pid: Option<u32>,
    /// Load before anything is measured
    #[arg(long, global = true, default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    /// How long to measure
    #[arg(long, global = true, default_value = "5s", value_parser = parse_duration)]
    duration: Duration,
    /// Poll without sleeping, on a core of its own [default: in closed loops]
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    spin: Option<bool>,
    /// Threads of the client, each with its share of connections and channels; not for `slow`, `replay` and
    /// `resume`
    #[arg(long, global = true, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Bind the client to this core, its other threads to the next ones
    #[arg(long, global = true, value_name = "CORE")]
    pin: Option<usize>,
    /// Source addresses 127.0.0.1, 127.0.0.2 …; 0: another one for each 25,000 connections
    #[arg(long, global = true, value_name = "N", default_value_t = 0)]
    sources: usize,
    /// Kernel buffer of each connection for what it receives [default: the kernel's choice]
    #[arg(long, global = true, value_name = "SIZE", value_parser = bytes)]
    receive_buffer: Option<usize>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Write a page with plots into this directory
    #[arg(long, global = true, value_name = "DIR")]
    report: Option<PathBuf>,
}

#[derive(Args)]
struct Fanout {
    /// Connections that publish
    #[arg(long, value_name = "P", default_value_t = 1, value_parser = at_least_one)]
    publishers: usize,
    /// Topics; subscribers are spread over them evenly
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = at_least_one)]
    topics: usize,
    /// Connections that subscribe, to one topic each
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
    subscribers: usize,
    /// Of each payload, with its quotes
    #[arg(long, default_value = "64", value_parser = bytes)]
    size: usize,
    #[command(flatten)]
    pace: PaceOptions,
    #[command(flatten)]
    probes: ProbeOptions,
}

#[derive(Args)]
struct Many {
    /// Connections that publish, each to all topics in turn
    #[arg(long, value_name = "P", default_value_t = 10, value_parser = at_least_one)]
    publishers: usize,
    /// Topics; connections are spread over them evenly
    #[arg(long, value_name = "T", default_value_t = 5000, value_parser = at_least_one)]
    topics: usize,
    /// Connections that subscribe, to one topic each
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = at_least_one)]
    connections: usize,
    /// Of each payload, with its quotes
    #[arg(long, default_value = "64", value_parser = bytes)]
    size: usize,
    #[command(flatten)]
    pace: PaceOptions,
}

#[derive(Args)]
struct PaceOptions {
    /// Closed loop: publications of each publisher on their way at a time
    #[arg(long, value_name = "W", default_value_t = 1, value_parser = at_least_one)]
    window: usize,
    /// Open loop: publications a second, of all publishers together
    #[arg(long, value_name = "R", value_parser = rate, conflicts_with = "window")]
    rate: Option<f64>,
}

#[derive(Args)]
struct ProbeOptions {
    /// Connections that ping meanwhile: how long others wait
    #[arg(long, value_name = "N", default_value_t = 0)]
    probes: usize,
    /// Pings a second, of all probes together, in an open loop
    #[arg(long, value_name = "R", default_value = "200", value_parser = rate)]
    probe_rate: f64,
}

#[derive(Args)]
struct Echo {
    /// Connections that ping
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    connections: usize,
    /// Pings of one connection on their way at a time
    #[arg(long, value_name = "W", default_value_t = 1, value_parser = at_least_one)]
    window: usize,
    /// Of the whole message [default: the bare ping, whose answers can only be counted]
    #[arg(long, value_parser = bytes)]
    size: Option<usize>,
}

#[derive(Args)]
struct Connect {
    /// Handshakes under way at a time
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = at_least_one)]
    concurrency: usize,
    /// Instead, open N connections, cut all, and take the time until all are back
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    storm: Option<usize>,
    #[cfg(feature = "uring")]
    #[command(flatten)]
    reach: Reach,
}

#[cfg(feature = "uring")]
#[derive(Args)]
struct Reach {
    /// Instead, open --connections, hold them for --duration and publish to all, in tables of io_uring:
    /// the open-file limit does not bound them
    #[arg(long, conflicts_with = "storm")]
    direct_descriptors: bool,
    /// How many, with --direct-descriptors
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = at_least_one)]
    connections: usize,
    /// Publications to all, with --direct-descriptors
    #[arg(long, value_name = "N", default_value_t = 10)]
    publications: u32,
}

#[derive(Args)]
struct Idle {
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
    connections: usize,
    /// Topics, of which each connection subscribes to one; 0: to none
    #[arg(long, value_name = "T", default_value_t = 1000)]
    topics: usize,
}

#[derive(Args)]
struct Slow {
    /// Connections that subscribe
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    subscribers: usize,
    /// How many of them stop reading
    #[arg(long, value_name = "K", default_value_t = 10)]
    stopped: usize,
    /// Of each payload, with its quotes
    #[arg(long, default_value = "4KiB", value_parser = bytes)]
    size: usize,
    /// Publications a second
    #[arg(long, value_name = "R", default_value = "300", value_parser = rate)]
    rate: f64,
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let Options { scenario, common } = options;
    open_files::raise();
    let conditions = common.conditions()?;
    let summary = match scenario {
        Scenario::Fanout(options) => {
            fanout::run("fanout", &conditions, options.plan()?).context("fanout")
        }
        Scenario::Many(options) => {
            fanout::run("many", &conditions, options.plan()?).context("many")
        }
        Scenario::Echo(options) => {
            echo::run(&conditions, options.plan(&conditions)?).context("echo")
        }
        #[cfg(feature = "uring")]
        Scenario::Connect(Connect { concurrency, reach, .. }) if reach.direct_descriptors => {
            let plan = bench::reach::ReachPlan {
                connections: reach.connections,
                concurrency: *concurrency,
                hold: conditions.duration,
                publications: reach.publications,
            };
            bench::reach::run(&conditions, plan).context("connect")
        }
        Scenario::Connect(Connect { concurrency, storm, .. }) => {
            let plan = connect::ConnectPlan { concurrency: *concurrency, storm: *storm };
            connect::run(&conditions, plan).context("connect")
        }
        Scenario::Idle(Idle { connections, topics }) => {
            let plan = idle::IdlePlan { connections: *connections, topics: *topics };
            idle::run(&conditions, plan).context("idle")
        }
        Scenario::Slow(options) => slow::run(&conditions, options.plan()?).context("slow"),
        Scenario::Durable(options) => {
            common.require_native("durable")?;
            durable::run(&conditions, options.plan()?).context("durable")
        }
        Scenario::Replay(options) => {
            common.require_native("replay")?;
            replay::run(&conditions, options.plan()?).context("replay")
        }
        Scenario::Resume(options) => {
            common.require_native("resume")?;
            resume::run(&conditions, options.plan()?).context("resume")
        }
    }?;
    show(&summary, common)
}

fn show(summary: &Summary, common: &Common) -> anyhow::Result<ExitCode> {
    let text = if common.json { summary.to_json() + "\n" } else { summary.to_string() };
    print(&text)?;
    if let Some(directory) = &common.report {
        report::write(summary, directory)
            .with_context(|| format!("cannot write {}", directory.display()))?;
    }
    Ok(if summary.is_faultless() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Common {
    fn conditions(&self) -> anyhow::Result<Conditions> {
        let mut dialect = match self.target {
            Kind::Stentor => Dialect::stentor(),
            Kind::Raw => Dialect::raw(),
        };
        for (template, given) in [
            (&mut dialect.subscribe, &self.subscribe_template),
            (&mut dialect.publish, &self.publish_template),
            (&mut dialect.echo, &self.echo_template),
            (&mut dialect.ping, &self.ping_template),
        ] {
            if let Some(given) = given {
                template.clone_from(given);
            }
        }
        dialect.confirms &= !self.no_confirm;
        dialect.channel_prefix =
            self.namespace.as_ref().map_or(String::new(), |name| format!("{name}:"));
        let run = getrandom::u32().context("the kernel gives no randomness")? as u16;
        Ok(Conditions {
            target: Target::new(&self.url, &dialect, run)?,
            url: self.url.clone(),
            server: self.server_pid.map(ServerProcess::new).transpose()?,
            threads: usize::from(self.threads),
            pin: self.pin,
            warmup: self.warmup,
            duration: self.duration,
            spin: self.spin,
            fleet: FleetOptions {
                sources: self.sources,
                receive_buffer_bytes: self.receive_buffer,
            },
            concurrency: bench::CONCURRENCY,
            progress: io::stderr().is_terminal(),
            clock: Clock::start(),
        })
    }
}

impl Common {
    /// Refuses other servers for what only this protocol has words for.
    fn require_native(&self, scenario: &str) -> anyhow::Result<()> {
        let templates = [
            &self.subscribe_template,
            &self.publish_template,
            &self.echo_template,
            &self.ping_template,
        ];
        let other = matches!(self.target, Kind::Raw) || self.no_confirm;
        if other || templates.into_iter().any(Option::is_some) {
            bail!(
                "{scenario} needs histories and acknowledgements: it speaks Stentor's protocol only"
            );
        }
        Ok(())
    }
}

impl PaceOptions {
    fn pace(&self) -> Pace {
        self.rate.map_or(Pace::Window(self.window), Pace::Rate)
    }
}

impl Fanout {
    fn plan(&self) -> anyhow::Result<BroadcastPlan> {
        let Self { publishers, topics, subscribers, size, .. } = *self;
        let ProbeOptions { probes: connections, probe_rate: rate } = self.probes;
        Ok(BroadcastPlan {
            shape: shape(publishers, topics, subscribers)?,
            data_bytes: data_bytes(size)?,
            pace: self.pace.pace(),
            probing: (connections > 0).then_some(Probing { connections, rate }),
        })
    }
}

impl Many {
    fn plan(&self) -> anyhow::Result<BroadcastPlan> {
        Ok(BroadcastPlan {
            shape: shape(self.publishers, self.topics, self.connections)?,
            data_bytes: data_bytes(self.size)?,
            pace: self.pace.pace(),
            probing: None,
        })
    }
}

impl Echo {
    fn plan(&self, conditions: &Conditions) -> anyhow::Result<echo::EchoPlan> {
        let least = echo::message_bytes_min(conditions);
        if let Some(size) = self.size
            && size < least
        {
            bail!("--size {size}: the ping with its proof has at least {least} bytes");
        }
        let Self { connections, window, size: message_bytes } = *self;
        Ok(echo::EchoPlan { connections, window, message_bytes })
    }
}

impl Slow {
    fn plan(&self) -> anyhow::Result<slow::SlowPlan> {
        let Self { subscribers, stopped, size, rate } = *self;
        if stopped >= subscribers {
            bail!("--stopped {stopped}: somebody must go on reading");
        }
        Ok(slow::SlowPlan { subscribers, stopped, data_bytes: data_bytes(size)?, rate })
    }
}

fn shape(publishers: usize, topics: usize, subscribers: usize) -> anyhow::Result<Shape> {
    if topics > subscribers {
        bail!("--topics {topics}: each needs a subscriber, and there are {subscribers}");
    }
    Ok(Shape { publishers, topics, subscribers })
}

fn data_bytes(size: usize) -> anyhow::Result<usize> {
    if size < DATA_BYTES_MIN {
        bail!("--size {size}: a payload with its proof has at least {DATA_BYTES_MIN} bytes");
    }
    Ok(size)
}

/// What a configuration can name, and JSON needs no escapes for.
fn namespace(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(plain) {
        return Err("not a name of letters, digits, `-`, `_` and `.`".to_string());
    }
    Ok(text.to_string())
}

fn bytes(text: &str) -> Result<usize, String> {
    parse_size(text).and_then(|size| usize::try_from(size).map_err(|_| "too large".to_string()))
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least one".to_string()),
        Ok(number) if number > NUMBER_MAX => Err(format!("at most {NUMBER_MAX}")),
        Ok(number) => Ok(number),
        Err(_) => Err("not a whole number".to_string()),
    }
}

/// What a stamp has room for.
const NUMBER_MAX: usize = (1 << 24) - 1;

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1e9 => Ok(rate),
        _ => Err("not a number above 0".to_string()),
    }
}
