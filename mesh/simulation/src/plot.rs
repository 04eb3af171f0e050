//! A report as a picture: each locality's share over time, and failures under it. Plain SVG, written by hand.

use std::fmt::Write as _;

use crate::report::Report;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
/// The panel of shares.
const SHARES: Panel = Panel { top: 48.0, height: 200.0 };
/// The panel of failures.
const FAILURES: Panel = Panel { top: 280.0, height: 60.0 };
const HEIGHT: f64 = 384.0;
/// Told apart in print and by those who see few colours; dashes tell them apart without any.
const LINES: [(&str, &str); 6] = [
    ("#0072b2", ""),
    ("#d55e00", "7 3"),
    ("#009e73", "2 2"),
    ("#cc79a7", "9 3 2 3"),
    ("#56b4e9", "4 4"),
    ("#5c5c5c", "1 3"),
];

struct Panel {
    top: f64,
    height: f64,
}

impl Panel {
    /// The height of a value between 0 and `most`.
    fn y(&self, value: f64, most: f64) -> f64 {
        self.top + self.height * (1.0 - (value / most).clamp(0.0, 1.0))
    }

    fn bottom(&self) -> f64 {
        self.top + self.height
    }
}

/// The picture of a report, with a title.
pub fn svg(report: &Report, title: &str) -> String {
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\" role=\"img\">\n<title>{0}</title>\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"13\" font-weight=\"bold\">{0}</text>",
        escape(title)
    );
    let end = report.seconds.len().max(1) as f64;
    let most = report.seconds.iter().map(|second| second.failures).max().unwrap_or(0).max(1);
    axes(&mut svg, &SHARES, "share, %", &[0.0, 25.0, 50.0, 75.0, 100.0]);
    axes(&mut svg, &FAILURES, "failures/s", &[0.0, f64::from(most)]);
    times(&mut svg, end);
    for (index, locality) in report.localities().iter().enumerate() {
        line(&mut svg, report, locality, index, end);
    }
    bars(&mut svg, report, end, f64::from(most));
    svg.push_str("</svg>\n");
    svg
}

fn x(t: f64, end: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * (t / end)
}

fn axes(svg: &mut String, panel: &Panel, label: &str, marks: &[f64]) {
    let most = marks.last().copied().unwrap_or(1.0);
    let right = WIDTH - RIGHT;
    for mark in marks {
        let y = panel.y(*mark, most);
        let _ = writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>");
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{mark}</text>", LEFT - 6.0, y + 4.0);
    }
    let middle = panel.top + panel.height / 2.0;
    let _ =
        writeln!(svg, "<text transform=\"translate(14 {middle}) rotate(-90)\" text-anchor=\"middle\">{label}</text>");
}

fn times(svg: &mut String, end: f64) {
    let step = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0].into_iter().find(|s| end / s <= 12.0);
    let step = step.unwrap_or(end / 10.0);
    let mut t = 0.0;
    while t <= end {
        let (x, y) = (x(t, end), FAILURES.bottom());
        let _ = writeln!(svg, "<path d=\"M{x:.1} {y}v4\" stroke=\"#444\"/>");
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{t}</text>", y + 16.0);
        t += step;
    }
    let (x, y) = (x(end / 2.0, end), FAILURES.bottom() + 32.0);
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">time, s</text>");
}

fn line(svg: &mut String, report: &Report, locality: &str, index: usize, end: f64) {
    let (colour, dashes) = LINES[index % LINES.len()];
    let mut path = String::new();
    let shares = report.shares_of(locality);
    for (i, (t, share)) in shares.iter().enumerate() {
        // What lies on a horizontal line between its neighbours is left out.
        let flat = |j: usize| shares.get(j).is_some_and(|(_, other)| other == share);
        if i > 0 && flat(i - 1) && flat(i + 1) {
            continue;
        }
        let command = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(path, "{command}{:.1} {:.1}", x(*t, end), SHARES.y(*share, 100.0));
    }
    let _ = writeln!(
        svg,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>"
    );
    let at = LEFT + 130.0 * index as f64;
    let _ = writeln!(
        svg,
        "<path d=\"M{at} 34h24\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>\
         <text x=\"{:.1}\" y=\"38\">{}</text>",
        at + 30.0,
        escape(locality)
    );
}

fn bars(svg: &mut String, report: &Report, end: f64, most: f64) {
    let mut path = String::new();
    for second in report.seconds.iter().filter(|second| second.failures > 0) {
        let (left, right) = (x(second.t as f64, end), x(second.t as f64 + 1.0, end));
        let y = FAILURES.y(f64::from(second.failures), most);
        let _ = write!(path, "M{left:.1} {:.1}V{y:.1}H{right:.1}V{:.1}Z", FAILURES.bottom(), FAILURES.bottom());
    }
    if !path.is_empty() {
        let _ = writeln!(svg, "<path d=\"{path}\" fill=\"#b00020\"/>");
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
