//! Metrics in the text format of Prometheus, version 0.0.4.

use std::fmt::Write;

use super::Context;
use crate::metrics::{BOUNDS_US, Counter, Metrics, ShardMetrics, Snapshot, SpaceMetrics};

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of all shards and of the other threads, now.
pub fn render(context: &Context) -> String {
    let mut text = String::with_capacity(32 << 10);
    let shards = context.metrics.shards();
    for &counter in Counter::ALL {
        let name = format!("stentor_{}_total", counter.name());
        family(&mut text, &name, "counter", counter.help());
        let alone = match counter.name() {
            "admin_requests" | "admin_refused" => Some(context.metrics.admin()),
            "route_taken" | "route_refused" | "route_failed" | "route_retries" | "route_lost" => {
                Some(context.metrics.bridge())
            }
            name if name.starts_with("store_") => Some(context.metrics.log()),
            _ => None,
        };
        match alone {
            Some(metrics) => sample(&mut text, &name, "", metrics.value(counter)),
            None => per_shard(&mut text, &name, shards, |shard| shard.value(counter)),
        }
    }
    family(&mut text, "stentor_connections", "gauge", "Open connections");
    per_shard(&mut text, "stentor_connections", shards, |shard| {
        let closed = shard.value(Counter::ConnectionsClosed);
        shard.value(Counter::ConnectionsAccepted).saturating_sub(closed)
    });
    let help = "Frames that wait for a reader or for their fan-out";
    family(&mut text, "stentor_frames_held", "gauge", help);
    per_shard(&mut text, "stentor_frames_held", shards, ShardMetrics::frames);
    family(&mut text, "stentor_topics", "gauge", "Channels in the table of a shard");
    per_shard(&mut text, "stentor_topics", shards, ShardMetrics::topics);
    let name = "stentor_namespace_publications_total";
    let help = "Publications that were given their place in a channel, by the namespace";
    per_namespace(&mut text, (name, help), &context.metrics, SpaceMetrics::publications);
    let name = "stentor_namespace_deliveries_total";
    let help = "Publications queued for a subscriber, by the namespace of the channel";
    per_namespace(&mut text, (name, help), &context.metrics, SpaceMetrics::deliveries);
    latency(&mut text, shards);
    let help = "1 while the durable log cannot write";
    family(&mut text, "stentor_store_failing", "gauge", help);
    let failing = u64::from(context.metrics.log().is_failing());
    sample(&mut text, "stentor_store_failing", "", failing);
    let help = "Time since a shard last began a turn; below 1 unless it stands still";
    family(&mut text, "stentor_turn_age_seconds", "gauge", help);
    let now = context.now().0;
    for (index, shard) in shards.iter().enumerate() {
        let age = shard.last_turn().map_or(0, |last| now.saturating_sub(last));
        let labels = format!("{{shard=\"{index}\"}}");
        sample(&mut text, "stentor_turn_age_seconds", &labels, age as f64 / 1000.0);
    }
    family(&mut text, "stentor_build_info", "gauge", "1, with the version of this build");
    let labels = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    sample(&mut text, "stentor_build_info", &labels, 1);
    let help = "Unix time at which the process started, in seconds";
    family(&mut text, "process_start_time_seconds", "gauge", help);
    let start = context.unix_start as f64 / 1000.0;
    sample(&mut text, "process_start_time_seconds", "", start);
    text
}

/// How long fan-outs took, as a histogram of each shard.
fn latency(text: &mut String, shards: &[ShardMetrics]) {
    const NAME: &str = "stentor_fanout_seconds";
    let help = "From a shard's taking a publication in until the sockets of its last subscriber there \
                were offered it";
    family(text, NAME, "histogram", help);
    for (index, shard) in shards.iter().enumerate() {
        let Snapshot { at_most, sum_us } = shard.fanout().snapshot();
        let bounds = BOUNDS_US.iter().map(|bound| (*bound as f64 / 1e6).to_string());
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(at_most) {
            let labels = format!("{{shard=\"{index}\",le=\"{bound}\"}}");
            sample(text, &format!("{NAME}_bucket"), &labels, count);
        }
        let labels = format!("{{shard=\"{index}\"}}");
        sample(text, &format!("{NAME}_sum"), &labels, sum_us as f64 / 1e6);
        sample(text, &format!("{NAME}_count"), &labels, at_most[BOUNDS_US.len()]);
    }
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail. What is escaped in a help text: `\` and the end of a line.
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{name}{labels} {value}");
}

fn per_namespace(
    text: &mut String,
    (name, help): (&str, &str),
    metrics: &Metrics,
    value: impl Fn(&SpaceMetrics) -> u64,
) {
    family(text, name, "counter", help);
    for (index, shard) in metrics.shards().iter().enumerate() {
        for (namespace, space) in metrics.namespaces().iter().zip(shard.namespaces()) {
            let labels = format!("{{shard=\"{index}\",namespace=\"{namespace}\"}}");
            sample(text, name, &labels, value(space));
        }
    }
}

fn per_shard(
    text: &mut String,
    name: &str,
    shards: &[ShardMetrics],
    value: impl Fn(&ShardMetrics) -> u64,
) {
    for (index, shard) in shards.iter().enumerate() {
        sample(text, name, &format!("{{shard=\"{index}\"}}"), value(shard));
    }
}
