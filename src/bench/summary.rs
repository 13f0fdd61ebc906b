//! What a run has found, in one form for the table, JSON and the page.

use super::clock::SECOND_NS;
use super::cost::Spent;
use super::ledger::Faults;
use super::meter::Meter;
use hdrhistogram::Histogram;
use serde::Serialize;

/// Percentiles that are named.
const PERCENTILES: [f64; 6] = [50.0, 90.0, 99.0, 99.9, 99.99, 100.0];
/// A client that works this share of its time may be what is measured.
const CLIENT_BUSY_MAX: f64 = 0.9;
/// An open loop that sends this much late has not kept its rate.
const SEND_LAG_NS_MAX: u64 = SECOND_NS / 1000;
/// Timer ticks of the usual kernels; CONFIG_HZ cannot be asked for.
const KERNEL_HZ: f64 = 250.0;

#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub scenario: &'static str,
    pub url: String,
    /// What was asked for, in the order of the flags.
    pub parameters: Vec<(&'static str, String)>,
    pub figures: Vec<Figure>,
    pub latencies: Vec<Latency>,
    /// Seconds, and how many a second.
    pub throughput: Vec<(f64, f64)>,
    /// Connections, and the server's resident bytes.
    pub memory: Vec<(f64, f64)>,
    pub faults: Faults,
    /// What to know before believing the figures.
    pub notes: Vec<String>,
}

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// For programs: stable.
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
}

/// The distribution of one latency, in nanoseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    pub name: &'static str,
    pub count: u64,
    pub mean_ns: f64,
    /// Percentile and value, for those that are named.
    pub percentiles: Vec<(f64, u64)>,
    /// Percentile and value, as finely as the histogram has it: for the plot.
    pub curve: Vec<(f64, u64)>,
}

impl Summary {
    pub fn new(scenario: &'static str, url: &str) -> Self {
        Self {
            scenario,
            url: url.to_string(),
            parameters: Vec::new(),
            figures: Vec::new(),
            latencies: Vec::new(),
            throughput: Vec::new(),
            memory: Vec::new(),
            faults: Faults::default(),
            notes: Vec::new(),
        }
    }

    pub fn parameter(&mut self, name: &'static str, value: impl ToString) {
        self.parameters.push((name, value.to_string()));
    }

    pub fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        // Nothing divided by nothing is no figure, and JSON has no word for it.
        if value.is_finite() {
            self.figures.push(Figure { name: name.into(), value, unit });
        }
    }

    pub fn latency(&mut self, name: &'static str, histogram: &Histogram<u64>) {
        if !histogram.is_empty() {
            self.latencies.push(Latency::new(name, histogram));
        }
    }

    /// The figures that every span has. `things` is what was counted, in the plural; `lag` is how late
    /// an open loop has sent.
    pub fn meter(&mut self, things: &'static str, meter: &Meter, lag: Option<&Histogram<u64>>) {
        self.figure(things, meter.count as f64, "");
        self.figure("seconds", meter.seconds(), "s");
        self.figure(format!("{things}_per_second"), meter.per_second(), "/s");
        self.figure("client_busy", meter.busy() * 100.0, "%");
        self.latency("latency", &meter.latency);
        self.throughput = meter.throughput();
        if let Some(lag) = lag {
            self.latency("send lag", lag);
            let late_ns = lag.value_at_quantile(0.99);
            if late_ns > SEND_LAG_NS_MAX {
                self.notes.push(format!(
                    "THE CLIENT WAS THE LIMIT: it sent 1 % of its messages {:.1} ms or more late",
                    late_ns as f64 / 1e6
                ));
            }
        }
        if meter.busy() > CLIENT_BUSY_MAX {
            self.notes.push(format!(
                "THE CLIENT WAS THE LIMIT: it was at work {:.0} % of the time; rates and latencies are \
                 its own, the server's CPU time per event still holds",
                meter.busy() * 100.0
            ));
        }
    }

    /// What the server spent on `count` times `thing`.
    pub fn cost(&mut self, thing: &'static str, spent: Spent, count: f64, seconds: f64) {
        let micros = |ns: f64| ns / count / 1000.0;
        self.figure(format!("cpu_per_{thing}"), micros(spent.total_ns()), "µs");
        self.figure(format!("user_cpu_per_{thing}"), micros(spent.user_ns), "µs");
        self.figure(format!("kernel_cpu_per_{thing}"), micros(spent.kernel_ns), "µs");
        let error = spent.split_error(KERNEL_HZ) * spent.total_ns();
        self.figure(format!("user_cpu_error_per_{thing}"), micros(error), "µs");
        let cores = spent.total_ns() / SECOND_NS as f64 / seconds;
        self.figure("server_cores", cores, "");
        if spent.total_ns() > 0.0 && error / spent.total_ns() > 0.01 {
            self.notes.push(format!(
                "the kernel splits user from kernel time at its timer ticks: run longer than {seconds:.1} \
                 s for a user time better than ± {:.3} µs",
                micros(error)
            ));
        }
    }

    /// Adds what was found wrong; `true` if nothing was.
    pub fn is_faultless(&self) -> bool {
        self.faults.total() == 0
    }

    pub fn to_json(&self) -> String {
        simd_json::serde::to_string_pretty(self).expect("numbers are finite, keys are strings")
    }
}

impl Latency {
    fn new(name: &'static str, histogram: &Histogram<u64>) -> Self {
        let percentiles = PERCENTILES
            .into_iter()
            .map(|percentile| (percentile, histogram.value_at_percentile(percentile)))
            .collect();
        let curve = histogram
            .iter_quantiles(4)
            .map(|step| (step.percentile(), step.value_iterated_to()))
            .collect();
        Self { name, count: histogram.len(), mean_ns: histogram.mean(), percentiles, curve }
    }
}
