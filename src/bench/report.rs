//! A summary as a page with plots, in a directory of its own.

use super::summary::Summary;
use super::table::{digits, span};
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

const PLOT_SIZE: (u32, u32) = (860, 360);
/// Longest tail of the plot by percentile: one in a million.
const NINES_MAX: f64 = 6.0;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;\
color:#222}table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em 1em .2em 0;text-align:right;\
border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}.bad{color:#b00020;\
font-weight:600}svg{width:100%;height:auto}code{background:#f4f4f4;padding:.1em .3em}";

/// Writes `index.html`, its plots and `summary.json` into `directory`, which is made if need be.
pub fn write(summary: &Summary, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut plots = Vec::new();
    for (name, plot) in [
        ("latency", latency_plot(summary)),
        ("throughput", throughput_plot(summary)),
        ("memory", memory_plot(summary)),
    ] {
        if let Some(svg) = plot.map_err(io::Error::other)? {
            fs::write(directory.join(format!("{name}.svg")), &svg)?;
            plots.push(svg);
        }
    }
    fs::write(directory.join("index.html"), page(summary, &plots))?;
    fs::write(directory.join("summary.json"), summary.to_json())
}

fn page(summary: &Summary, plots: &[String]) -> String {
    let title = format!("stentor bench {}", summary.scenario);
    let mut body = format!("<h1>{title}</h1>\n<p><code>{}</code></p>\n", escape(&summary.url));
    for note in &summary.notes {
        row(&mut body, format_args!("<p class=bad>{}</p>", escape(note)));
    }
    for (name, count) in summary.faults.by_name() {
        if count > 0 {
            row(&mut body, format_args!("<p class=bad>{count} {name}</p>"));
        }
    }
    if summary.is_faultless() {
        body.push_str("<p>Nothing lost, repeated, out of order or changed.</p>\n");
    }
    body.push_str("<table>\n");
    for (name, value) in &summary.parameters {
        row(&mut body, format_args!("<tr><td>{name}<td>{}", escape(value)));
    }
    body.push_str("</table>\n<table>\n");
    for figure in &summary.figures {
        let (name, value) = (figure.name.replace('_', " "), digits(figure.value));
        row(&mut body, format_args!("<tr><td>{name}<td>{value}<td>{}", figure.unit));
    }
    body.push_str("</table>\n");
    if let Some(first) = summary.latencies.first() {
        body.push_str("<table>\n<tr><th>");
        for (percentile, _) in &first.percentiles {
            row(&mut body, format_args!("<th>{percentile} %"));
        }
        for latency in &summary.latencies {
            row(&mut body, format_args!("<tr><td>{}", latency.name));
            for (_, nanoseconds) in &latency.percentiles {
                row(&mut body, format_args!("<td>{}", span(*nanoseconds)));
            }
        }
        body.push_str("</table>\n");
    }
    for plot in plots {
        // The declaration that stands before an SVG file has no place inside a page.
        body.push_str(plot.split_once("?>").map_or(plot, |(_, svg)| svg));
    }
    format!(
        "<!doctype html>\n<html lang=en><meta charset=utf-8><title>{title}</title>\n\
         <style>{STYLE}</style>\n{body}</html>\n"
    )
}

fn row(body: &mut String, text: std::fmt::Arguments<'_>) {
    body.write_fmt(text).and_then(|()| body.write_char('\n')).expect("a string takes all");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

type Plot = Result<Option<String>, Box<dyn std::error::Error + Send + Sync>>;
type Points = Vec<(f64, f64)>;

/// Latency over the number of nines, logarithmic in both directions: tails have room.
fn latency_plot(summary: &Summary) -> Plot {
    let lines: Vec<(&str, Points)> = summary
        .latencies
        .iter()
        .map(|latency| {
            let point = |&(percentile, ns): &(f64, u64)| {
                let nines = -(1.0 - percentile / 100.0).max(1e-9).log10();
                (nines.min(NINES_MAX), ns as f64 / 1000.0)
            };
            (latency.name, latency.curve.iter().map(point).collect())
        })
        .collect();
    let values = lines.iter().flat_map(|(_, points)| points).map(|(_, value)| *value);
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(0.0, f64::max);
    if lines.is_empty() {
        return Ok(None);
    }
    draw(
        "Latency by percentile, µs",
        0.0..NINES_MAX,
        (low / 1.5..high * 1.5).log_scale(),
        &|nines| match *nines {
            0.0 => "0 %".to_string(),
            nines => format!("{} %", 100.0 - 100.0 / 10f64.powf(nines)),
        },
        &lines,
    )
    .map(Some)
}

fn throughput_plot(summary: &Summary) -> Plot {
    let Some((last, _)) = summary.throughput.last() else { return Ok(None) };
    let highest = summary.throughput.iter().map(|(_, rate)| *rate).fold(1.0, f64::max);
    let lines = [("per second", summary.throughput.clone())];
    let title = "Throughput over time, per second";
    let seconds = |seconds: &f64| format!("{seconds} s");
    draw(title, 0.0..*last, 0.0..highest * 1.1, &seconds, &lines).map(Some)
}

fn memory_plot(summary: &Summary) -> Plot {
    let Some((last, _)) = summary.memory.last() else { return Ok(None) };
    let mebibytes = |&(connections, bytes): &(f64, f64)| (connections, bytes / f64::from(1 << 20));
    let points: Points = summary.memory.iter().map(mebibytes).collect();
    let highest = points.iter().map(|(_, value)| *value).fold(1.0, f64::max);
    let lines = [("resident", points)];
    let title = "Resident memory of the server by connections, MiB";
    let count = |count: &f64| count.to_string();
    draw(title, 0.0..*last, 0.0..highest * 1.1, &count, &lines).map(Some)
}

fn draw<Y>(
    title: &str,
    x: std::ops::Range<f64>,
    y: Y,
    x_label: &dyn Fn(&f64) -> String,
    lines: &[(&str, Points)],
) -> Result<String, Box<dyn std::error::Error + Send + Sync>>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    const COLORS: [RGBColor; 4] = [
        RGBColor(31, 98, 180),
        RGBColor(214, 96, 20),
        RGBColor(40, 140, 60),
        RGBColor(140, 60, 150),
    ];
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, PLOT_SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(|error| error.to_string())?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(28)
            .y_label_area_size(72)
            .build_cartesian_2d(x, y)
            .map_err(|error| error.to_string())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_label_formatter(x_label)
            .draw()
            .map_err(|error| error.to_string())?;
        for ((name, points), color) in lines.iter().zip(COLORS.into_iter().cycle()) {
            let line = LineSeries::new(points.iter().copied(), color.stroke_width(2));
            chart
                .draw_series(line)
                .map_err(|error| error.to_string())?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .draw()
            .map_err(|error| error.to_string())?;
        area.present().map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::super::meter::Meter;
    use super::*;

    #[test]
    fn a_report_has_a_page_and_a_plot_for_all_there_is() {
        let mut meter = Meter::default();
        meter.start(0);
        for index in 1..1000 {
            meter.note(index * 1_000_000 - index * 100, index * 1_000_000);
        }
        meter.stop(1_000_000_000);
        let mut summary = Summary::new("idle", "ws://127.0.0.1:1/<&>");
        summary.meter("deliveries", &meter, None);
        summary.memory = vec![(0.0, 1e6), (100.0, 2e6)];
        let directory = tempfile::tempdir().unwrap();
        write(&summary, directory.path()).unwrap();
        for name in ["latency.svg", "throughput.svg", "memory.svg"] {
            let svg = fs::read_to_string(directory.path().join(name)).unwrap();
            assert!(svg.contains("<svg") && svg.contains("<polyline"), "{name}");
        }
        let page = fs::read_to_string(directory.path().join("index.html")).unwrap();
        assert_eq!(page.matches("<svg").count(), 3);
        assert!(page.contains("/&lt;&amp;&gt;"));
    }
}
