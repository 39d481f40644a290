//! Tables: all figures of a shape, and the one that matters most of all shapes.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::anchor;
use crate::plot::{escape, number};
use crate::result::{Better, Cell, Figure, Outcome, name};

/// The figures of one shape: a row each, a column for each subject.
pub(super) fn figures(cells: &[&Cell], wanted: Option<&str>) -> String {
    let base = base_of(cells, wanted);
    let mut html = "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">Median\
         <small>lowest - highest round</small></th>"
        .to_owned();
    for cell in cells {
        let is_base = base.is_some_and(|base| std::ptr::eq(base, *cell));
        let note = if is_base { "<small>base of the ratios</small>" } else { "" };
        let _ = write!(html, "<th scope=\"col\">{}{note}</th>", escape(&cell.subject));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    let names = super::distinct(
        cells
            .iter()
            .filter(|cell| cell.void.is_none())
            .flat_map(|cell| cell.figures.iter().map(|figure| figure.name.as_str())),
    );
    for (row, name) in names.iter().enumerate() {
        html.push_str(&figure_row(cells, base, name, row == 0, names.len()));
    }
    if names.is_empty() {
        html.push_str("<tr><th scope=\"row\">void</th>");
        cells.iter().for_each(|cell| html.push_str(&void_column(cell, 1)));
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

fn figure_row(
    cells: &[&Cell],
    base: Option<&Cell>,
    name: &str,
    is_first: bool,
    rows: usize,
) -> String {
    let in_row = |cell: &&Cell| cell.figure(name).filter(|_| cell.void.is_none()).cloned();
    let row: Vec<Figure> = cells.iter().filter_map(in_row).collect();
    let Some(first) = row.first() else {
        return String::new();
    };
    let highest = row.iter().map(|figure| figure.high.abs()).fold(0.0, f64::max);
    let scale = Scale::of(&first.unit, highest);
    let mut html = format!(
        "<tr><th scope=\"row\" title=\"{}\">{}<small>{}</small></th>",
        escape(name),
        escape(&label(name)),
        escape(&scale.caption(first.better))
    );
    for cell in cells {
        html.push_str(&match (&cell.void, cell.figure(name)) {
            (Some(_), _) if is_first => void_column(cell, rows),
            (Some(_), _) => String::new(),
            (None, None) => NOTHING.to_owned(),
            (None, Some(figure)) => figure_cell(figure, &scale, ratio(cell, name, base)),
        });
    }
    html.push_str("</tr>\n");
    html
}

/// One figure: median, spread, ratio to the base. What it was written as stands in the attribute,
/// all rounds in the title.
fn figure_cell(figure: &Figure, scale: &Scale, ratio: Option<String>) -> String {
    let rounds: Vec<String> = figure.rounds.iter().map(f64::to_string).collect();
    let mut html = format!(
        "<td title=\"rounds: {}\"><data value=\"{}\">{}</data>",
        rounds.join(", "),
        figure.median,
        scale.text(figure.median)
    );
    let spread = (figure.rounds.len() > 1).then(|| {
        let ends = [figure.low, figure.high]
            .map(|end| format!("<data value=\"{end}\">{}</data>", scale.text(end)));
        ends.join(" - ")
    });
    for part in [ratio, spread].into_iter().flatten() {
        let _ = write!(html, "<small>{part}</small>");
    }
    html.push_str("</td>");
    html
}

/// What stands beside a figure as a multiple of the base's: only the cost has one, for only its
/// ratios are taken within rounds. A ratio of two medians would look the same and mean less.
fn ratio(cell: &Cell, figure: &str, base: Option<&Cell>) -> Option<String> {
    let base = base.filter(|_| figure == name::CPU_NS_PER_PACKET)?;
    Some(format!("{:.2}&#215;", cell.ratio_of(&base.subject)?))
}

/// A void subject: its reason down the whole column.
fn void_column(cell: &Cell, rows: usize) -> String {
    cell.void.as_ref().map_or_else(
        || format!("<td rowspan=\"{rows}\" class=\"nothing\">-</td>"),
        |why| {
            let why = escape(why);
            format!("<td rowspan=\"{rows}\" class=\"is-void\"><strong>void</strong>: {why}</td>")
        },
    )
}

/// The headline figure of every shape and subject, with links to the shapes.
pub(super) fn overview(
    outcome: &Outcome,
    shapes: &[&str],
    subjects: &[&str],
    wanted: Option<&str>,
    part: usize,
) -> String {
    let Some(name) = headline(outcome) else {
        return String::new();
    };
    let counting = outcome.cells.iter().filter(|cell| cell.void.is_none());
    let all: Vec<&Figure> = counting.filter_map(|cell| cell.figure(name)).collect();
    let (unit, better) =
        all.first().map_or(("", Better::Neither), |figure| (figure.unit.as_str(), figure.better));
    let highest = all.iter().map(|figure| figure.high.abs()).fold(0.0, f64::max);
    let scale = Scale::of(unit, highest);
    let mut html = format!(
        "<h3>{}, {}</h3>\n<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">Shape</th>",
        escape(&label(name)),
        escape(&scale.caption(better))
    );
    for subject in subjects {
        let _ = write!(html, "<th scope=\"col\">{}</th>", escape(subject));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for (index, shape) in shapes.iter().enumerate() {
        let cells: Vec<&Cell> = outcome.cells.iter().filter(|cell| cell.shape == *shape).collect();
        let base = base_of(&cells, wanted);
        let (anchor, shape_text) = (anchor(part, index), escape(shape));
        let _ = write!(html, "<tr><th scope=\"row\"><a href=\"#{anchor}\">{shape_text}</a></th>");
        for subject in subjects {
            html.push_str(&match outcome.cell(shape, subject) {
                Some(cell) => overview_cell(cell, name, &scale, base),
                None => NOTHING.to_owned(),
            });
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

fn overview_cell(cell: &Cell, name: &str, scale: &Scale, base: Option<&Cell>) -> String {
    if cell.void.is_some() {
        return "<td class=\"nothing\">void</td>".to_owned();
    }
    let Some(figure) = cell.figure(name) else {
        return NOTHING.to_owned();
    };
    let text = scale.text(figure.median);
    let mut html = format!("<td><data value=\"{}\">{text}</data>", figure.median);
    if let Some(ratio) = ratio(cell, name, base) {
        let _ = write!(html, "<small>{ratio}</small>");
    }
    html.push_str("</td>");
    html
}

/// What the overview shows: the first of these that any cell has, else the first figure there is.
pub(super) fn headline(outcome: &Outcome) -> Option<&str> {
    let has = |name: &&str| outcome.cells.iter().any(|cell| cell.figure(name).is_some());
    let known = [name::CPU_NS_PER_PACKET, name::CONNECTS_PER_SECOND, name::DELIVERED_PPS];
    let any = || outcome.cells.iter().find_map(|cell| Some(cell.figures.first()?.name.as_str()));
    known.into_iter().find(has).or_else(any)
}

/// What the ratios of a shape refer to. A void subject is no base, nor is one that nothing has been
/// put in relation to.
fn base_of<'a>(cells: &[&'a Cell], wanted: Option<&str>) -> Option<&'a Cell> {
    let counting = |name: &&str| {
        cells.iter().copied().find(|cell| cell.subject == *name && cell.void.is_none())
    };
    let is_base = |base: &&Cell| cells.iter().any(|cell| cell.ratio_of(&base.subject).is_some());
    match wanted {
        Some(wanted) => counting(&wanted).filter(is_base),
        None => BASES.iter().find_map(|name| counting(name).filter(is_base)),
    }
}

/// The unit of a row: times above 10 us are not written in nanoseconds.
struct Scale {
    divisor: f64,
    unit: String,
}

impl Scale {
    fn of(unit: &str, highest: f64) -> Self {
        let (divisor, unit) = match (unit, highest) {
            ("ns", 10_000.0..10_000_000.0) => (1e3, "us"),
            ("ns", 10_000_000.0..) => (1e6, "ms"),
            _ => (1.0, unit),
        };
        Self { divisor, unit: unit.to_owned() }
    }

    fn text(&self, value: f64) -> String {
        number(value / self.divisor)
    }

    fn caption(&self, better: Better) -> String {
        let better = match better {
            Better::Lower => "lower is better",
            Better::Higher => "higher is better",
            Better::Neither => "",
        };
        let parts = [self.unit.as_str(), better];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    }
}

/// A figure's name for people.
fn label(figure: &str) -> Cow<'_, str> {
    if let Some(base) = name::base_of(figure) {
        return format!("CPU time per packet, as a multiple of {base}").into();
    }
    let label = match figure {
        name::CPU_NS_PER_PACKET => "CPU time per packet",
        name::CPU_PERCENT => "CPU of one core",
        name::PPS_PER_CORE => "Packets per second and core",
        name::OFFERED_PPS => "Packets offered",
        name::DELIVERED_PPS => "Packets delivered",
        name::LOSS_PERCENT => "Loss",
        name::LOST => "Packets lost",
        name::REORDERED => "Packets reordered",
        name::LATENCY_P50 => "Latency, median",
        name::LATENCY_P90 => "Latency, 90 %",
        name::LATENCY_P99 => "Latency, 99 %",
        name::LATENCY_P999 => "Latency, 99.9 %",
        name::LATENCY_MAX => "Latency, maximum",
        name::RECEIVE_BATCH => "Datagrams per receive",
        name::SEND_BATCH => "Datagrams per send",
        name::SYSCALLS_PER_PACKET => "System calls per packet",
        name::MEMORY_PER_SESSION => "Memory per session",
        name::RUN_DELAY_PERCENT => "Run delay",
        name::CONNECTS_PER_SECOND => "Connects per second",
        "setup_p50" => "Handshake, median",
        "setup_p99" => "Handshake, 99 %",
        "setup_max" => "Handshake, maximum",
        "post_p50" => "POST, median",
        "post_p99" => "POST, 99 %",
        "delete_p50" => "DELETE, median",
        "delete_p99" => "DELETE, 99 %",
        "lateness_p99" => "Sent late by, 99 %",
        "lowest_failing_pps" => "Lowest rate that fails",
        "held_pps_at_least" => "Held at least",
        "connects_per_second_at_least" => "Connects per second, at least",
        "cpu_per_session" => "CPU time per session",
        "live_sent" => "Packets of live sessions",
        other => other,
    };
    label.into()
}

/// In the place of a figure that there is not.
const NOTHING: &str = "<td class=\"nothing\">-</td>";
const BASES: [&str; 4] = ["loop", "plain-mmsg", "mmsg", "nginx"];
