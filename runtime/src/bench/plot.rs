//! Latency against load, as a picture. Pure: SVG text from reports.

use std::fmt::Write;

use super::report::{Report, Run};
use super::statistics::Summary;

const WIDTH: f64 = 760.0;
const PANEL: f64 = 230.0;
/// Where lines may be, within a panel.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 590.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 190.0;
/// Distance of a legend's lines.
const LEGEND_STEP: f64 = 18.0;
const COLOURS: [&str; 6] = ["#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a"];

/// What a panel shows of a run.
struct Panel {
    title: &'static str,
    lines: &'static [Line],
}

struct Line {
    name: &'static str,
    dashed: bool,
    of: fn(&Run) -> Option<f64>,
}

const PANELS: [Panel; 3] = [
    Panel {
        title: "time to the first token, milliseconds",
        lines: &[
            Line { name: "median", dashed: false, of: |run| run.ttft_ms.map(|ttft: Summary| ttft.p50) },
            Line { name: "p99", dashed: true, of: |run| run.ttft_ms.map(|ttft| ttft.p99) },
        ],
    },
    Panel {
        title: "time between tokens, milliseconds",
        lines: &[
            Line { name: "median", dashed: false, of: |run| run.itl_ms.map(|itl| itl.p50) },
            Line { name: "p99", dashed: true, of: |run| run.itl_ms.map(|itl| itl.p99) },
        ],
    },
    Panel {
        title: "output tokens per second",
        lines: &[Line { name: "", dashed: false, of: |run| Some(run.output_throughput) }],
    },
];

/// Draws each report under its name, with the amount of load from left to right.
#[must_use]
pub fn plot(reports: &[(String, Report)]) -> String {
    let runs = || reports.iter().flat_map(|(_, report)| &report.runs);
    let unit = runs().next().map_or("", |run| run.load.unit());
    let most = runs().map(|run| run.load.amount()).fold(0.0, f64::max);
    let height = PANEL * PANELS.len() as f64 + 20.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (panel, index) in PANELS.iter().zip(0u32..) {
        // Writing into a string cannot fail.
        let _ = draw(&mut svg, panel, PANEL * f64::from(index), (reports, most, unit));
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(
    svg: &mut String,
    panel: &Panel,
    top: f64,
    (reports, most_load, unit): (&[(String, Report)], f64, &str),
) -> std::fmt::Result {
    let values = reports.iter().flat_map(|(_, report)| &report.runs);
    let values = values.flat_map(|run| panel.lines.iter().filter_map(|line| (line.of)(run)));
    let (x_step, x_end) = scale(most_load);
    let (y_step, y_end) = scale(values.fold(0.0, f64::max));
    let x = |load: f64| LEFT + (RIGHT - LEFT) * load / x_end;
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * value / y_end;
    writeln!(svg, "<g transform=\"translate(0 {top})\">")?;
    writeln!(svg, "<text x=\"{LEFT}\" y=\"18\" font-weight=\"bold\">{}</text>", panel.title)?;
    for at in steps(y_step, y_end) {
        let y = y(at);
        writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#d0d7de\"/>")?;
        writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{at}</text>", LEFT - 6.0, y + 4.0)?;
    }
    for at in steps(x_step, x_end) {
        writeln!(svg, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{at}</text>", x(at), BOTTOM + 16.0)?;
    }
    let middle = (LEFT + RIGHT) / 2.0;
    writeln!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{unit}</text>", BOTTOM + 32.0)?;
    let mut legend = TOP;
    for ((name, report), colour) in reports.iter().zip(COLOURS.iter().cycle()) {
        for line in panel.lines {
            let dash = if line.dashed { " stroke-dasharray=\"5 3\"" } else { "" };
            let style = format!("stroke=\"{colour}\" fill=\"none\" stroke-width=\"2\"{dash}");
            let points = report.runs.iter().filter_map(|run| Some((run.load.amount(), (line.of)(run)?)));
            let points: Vec<_> =
                points.map(|(load, value)| format!("{:.1},{:.1}", x(load), y(value))).collect();
            writeln!(svg, "<polyline points=\"{}\" {style}/>", points.join(" "))?;
            for point in &points {
                let (x, y) = point.split_once(',').unwrap_or_default();
                writeln!(svg, "<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"{colour}\"/>")?;
            }
            let (from, text) = (RIGHT + 16.0, RIGHT + 46.0);
            writeln!(svg, "<path d=\"M{from} {legend}h24\" {style}/>")?;
            let name = escaped(name);
            writeln!(svg, "<text x=\"{text}\" y=\"{}\">{name} {}</text>", legend + 4.0, line.name)?;
            legend += LEGEND_STEP;
        }
    }
    writeln!(svg, "</g>")
}

/// A step of 1, 2 or 5 times a power of ten that gives four to ten steps, and the first of them that is not below `most`.
fn scale(most: f64) -> (f64, f64) {
    let most = if most > 0.0 && most.is_finite() { most } else { 1.0 };
    let power = 10f64.powf((most / 10.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| most / step <= 10.0);
    let step = step.unwrap_or(10.0 * power);
    (step, (most / step).ceil() * step)
}

fn steps(step: f64, end: f64) -> impl Iterator<Item = f64> {
    let n = (end / step).round() as u32;
    // Rounded to what the step has of digits, or 0.30000000000000004 would be written.
    let digits = (-step.log10().floor()).max(0.0);
    let unit = 10f64.powf(digits);
    (0..=n).map(move |index| (f64::from(index) * step * unit).round() / unit)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::Load;
    use crate::bench::client::Answer;
    use crate::bench::report::Sample;
    use crate::bench::statistics::Goals;

    fn report(loads: &[usize]) -> Report {
        let runs = loads.iter().map(|streams| {
            let chunks = vec![Duration::from_millis(*streams as u64 * 100), Duration::from_secs(1)];
            let answer = Answer { chunks, output_tokens: 2, ..Answer::default() };
            let sample = Sample { sent: Duration::ZERO, answer: Ok(answer) };
            Run::new(Load::Closed { streams: *streams }, Duration::from_secs(1), &[sample], &Goals::default())
        });
        Report {
            model: String::new(),
            prompt_tokens: 1,
            prefix_tokens: 0,
            output_tokens: 2,
            seed: 0,
            runs: runs.collect(),
        }
    }

    #[test]
    fn every_line_of_every_report_is_drawn_within_the_picture() {
        let svg =
            plot(&[("ours & more".to_owned(), report(&[1, 4, 8])), ("peer".to_owned(), report(&[1, 8]))]);
        // Two panels with two lines and one with one, of two reports.
        assert_eq!(svg.matches("<polyline").count(), 10);
        assert_eq!(svg.matches("<circle").count(), 5 * (3 + 2));
        assert!(svg.contains("ours &amp; more p99") && svg.contains("concurrent requests"));
        let numbers = svg.split("<circle cx=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0);
        assert!(numbers.map(|x| x.parse::<f64>().unwrap()).all(|x| (LEFT..=RIGHT).contains(&x)));
        assert!(plot(&[]).ends_with("</svg>\n"));
    }

    #[test]
    fn scales_are_round() {
        assert_eq!((scale(8.0), scale(0.37), scale(1234.0)), ((1.0, 8.0), (0.05, 0.4), (200.0, 1400.0)));
        assert_eq!(scale(0.0), (0.1, 1.0));
        assert_eq!(steps(0.1, 0.4).collect::<Vec<_>>(), [0.0, 0.1, 0.2, 0.3, 0.4]);
    }
}
