//! `ringway-bench report`: outcomes as one HTML file that needs nothing else.
//!
//! The page is for people who were not there: what was measured where and how, every figure with its
//! spread, and drawings that say what they show. It loads nothing, runs nothing, follows the
//! reader's choice of light or dark, and can be read on a telephone and on paper. What is void is
//! named with its reason and neither drawn nor tabulated as if it counted.

mod draw;
mod table;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, ensure};

use crate::plot::{DARK_STYLE, Plot, escape};
use crate::result::{Cell, Outcome, name};

/// `ringway-bench report`
#[derive(Clone, Debug, clap::Args)]
pub struct ReportArguments {
    /// Results that a measuring command wrote with --json
    #[arg(value_name = "FILE.json", required = true)]
    files: Vec<PathBuf>,
    /// The page
    #[arg(short, long, value_name = "FILE.html", default_value = "report.html")]
    output: PathBuf,
    /// Write each plot into this directory as well, as an SVG file of its own
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// The subject that the ratios of the cost refer to; default: in each shape the first there is of loop,
    /// plain-mmsg, mmsg and nginx
    #[arg(long, value_name = "SUBJECT")]
    base: Option<String>,
}

/// Reads the outcomes and writes the page.
///
/// # Errors
/// A file cannot be read or written, is no result, or nothing is in relation to --base.
pub fn run(arguments: &ReportArguments) -> anyhow::Result<bool> {
    let outcomes: Vec<Outcome> =
        arguments.files.iter().map(|file| Outcome::read(file)).collect::<Result<_, _>>()?;
    if let Some(base) = &arguments.base {
        let bases = bases(&outcomes);
        ensure!(
            bases.contains(base.as_str()),
            "there are no ratios within rounds to --base {base}, only to {bases:?}"
        );
    }
    let Page { html, plots } = Page::of(&outcomes, arguments.base.as_deref())?;
    let output = &arguments.output;
    fs::write(output, html).with_context(|| format!("write {}", output.display()))?;
    println!("{}: {} plots", output.display(), plots.len());
    if let Some(directory) = &arguments.svg {
        write_plots(directory, &plots)?;
    }
    Ok(true)
}

fn write_plots(directory: &Path, plots: &[Plot]) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    for plot in plots {
        let path = directory.join(format!("{}.svg", plot.name));
        fs::write(&path, plot.file()).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// A finished page and the plots in it.
#[derive(Debug)]
pub struct Page {
    /// The file.
    pub html: String,
    /// In the order in which they stand on it.
    pub plots: Vec<Plot>,
}

impl Page {
    /// Lays out outcomes below each other. Ratios refer to the subject `base`, if it is there.
    ///
    /// # Errors
    /// What the drawing library reports.
    pub fn of(outcomes: &[Outcome], base: Option<&str>) -> anyhow::Result<Self> {
        let title = match outcomes {
            [one] => one.title.clone(),
            several => format!("{} results", several.len()),
        };
        let mut page = Self { html: String::new(), plots: Vec::new() };
        let title = escape(&title);
        page.push(&format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
             <meta name=\"color-scheme\" content=\"light dark\"/>\n\
             <link rel=\"icon\" href=\"data:,\"/>\n\
             <title>{title} - Ringway</title>\n<style>\n{STYLE}{DARK_STYLE}\n</style>\n</head>\n\
             <body>\n<main>\n"
        ));
        for (number, outcome) in outcomes.iter().enumerate() {
            Part { outcome, base, number }.write(&mut page)?;
        }
        page.push("</main>\n</body>\n</html>\n");
        Ok(page)
    }

    fn push(&mut self, html: &str) {
        self.html.push_str(html);
    }

    fn push_plot(&mut self, plot: Plot) {
        let Plot { wide, narrow, .. } = &plot;
        let figure = format!(
            "<figure class=\"plot\">\n<div class=\"wide\">{wide}</div>\n\
             <div class=\"narrow\">{narrow}</div>\n</figure>\n"
        );
        self.push(&figure);
        self.plots.push(plot);
    }
}

/// One outcome on the page.
struct Part<'a> {
    outcome: &'a Outcome,
    base: Option<&'a str>,
    /// Among the outcomes of the page, from 0.
    number: usize,
}

impl Part<'_> {
    fn write(&self, page: &mut Page) -> anyhow::Result<()> {
        let Self { outcome, base, number } = *self;
        let (subjects, shapes) = (subjects(outcome), shapes(outcome));
        page.push("<article>\n");
        page.push(&self.head());
        page.push(&voids(outcome));
        if shapes.is_empty() {
            page.push("<p class=\"note\">This result holds no measurement.</p>\n");
        }
        if shapes.len() > 1 {
            page.push(&table::overview(outcome, &shapes, &subjects, base, number));
        }
        for (index, shape) in shapes.iter().enumerate() {
            let cells: Vec<&Cell> =
                outcome.cells.iter().filter(|cell| cell.shape == *shape).collect();
            let _ = write!(
                page.html,
                "<section id=\"{}\">\n<h2>{}</h2>\n",
                anchor(number, index),
                escape(shape)
            );
            let stem = format!("{}-{}-{}", number + 1, index + 1, slug(shape));
            let drawings = draw::Drawings::of(&cells, &subjects, &stem)?;
            page.push("<div class=\"plots\">\n");
            drawings.plots.into_iter().for_each(|plot| page.push_plot(plot));
            page.push("</div>\n");
            for note in drawings.notes {
                let _ = writeln!(page.html, "<p class=\"note\">{}</p>", escape(&note));
            }
            page.push(&table::figures(&cells, base));
            page.push("</section>\n");
        }
        page.push("</article>\n");
        Ok(())
    }

    /// What was measured, where and how.
    fn head(&self) -> String {
        let Outcome { title, host, setup, .. } = self.outcome;
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(host.unix_seconds));
        let at = at.filter(|_| host.unix_seconds < LATEST_DATE).map(|at| {
            let at = humantime::format_rfc3339_seconds(at).to_string();
            at.replace('T', " ").replace('Z', " UTC")
        });
        let mut html = format!("<h1>{}</h1>\n<dl class=\"host\">\n", escape(title));
        for (term, value) in [
            ("Measured", at.as_deref().unwrap_or("at an unknown time")),
            ("Host", &host.hostname),
            ("CPU", &format!("{}, {} usable", host.cpu_model, host.cpus)),
            ("Kernel", &host.kernel),
        ] {
            let _ = writeln!(html, "<div><dt>{term}</dt><dd>{}</dd></div>", escape(value));
        }
        let command = escape(&host.command);
        let _ = writeln!(html, "<div><dt>Command</dt><dd><code>{command}</code></dd></div>\n</dl>");
        if !setup.is_empty() {
            html.push_str(
                "<details open=\"open\"><summary>Set-up</summary>\n<dl class=\"setup\">\n",
            );
            for (key, value) in setup {
                let (key, value) = (escape(&key.replace('_', " ")), escape(value));
                let _ = writeln!(html, "<div><dt>{key}</dt><dd>{value}</dd></div>");
            }
            html.push_str("</dl></details>\n");
        }
        html
    }
}

/// The cells that do not count, each with its reason.
fn voids(outcome: &Outcome) -> String {
    let all = outcome.cells.len();
    let voids: Vec<(&Cell, &String)> =
        outcome.cells.iter().filter_map(|cell| Some((cell, cell.void.as_ref()?))).collect();
    if voids.is_empty() {
        return String::new();
    }
    let mut html = format!(
        "<div class=\"void\"><p><strong>{} of {all} measurements are void</strong> and stand \
         nowhere below as figures:</p>\n<ul>\n",
        voids.len()
    );
    for (cell, reason) in voids {
        let (shape, subject) = (escape(&cell.shape), escape(&cell.subject));
        let _ = writeln!(html, "<li>{subject}, {shape}: {}</li>", escape(reason));
    }
    html.push_str("</ul></div>\n");
    html
}

/// The subjects that others have been put in relation to.
fn bases(outcomes: &[Outcome]) -> BTreeSet<&str> {
    let cells = outcomes.iter().flat_map(|outcome| &outcome.cells);
    let figures = cells.flat_map(|cell| &cell.figures);
    figures.filter_map(|figure| name::base_of(&figure.name)).collect()
}

/// The columns, in the order in which they come first.
fn subjects(outcome: &Outcome) -> Vec<&str> {
    distinct(outcome.cells.iter().map(|cell| cell.subject.as_str()))
}

/// The rows, in the order in which they come first.
fn shapes(outcome: &Outcome) -> Vec<&str> {
    distinct(outcome.cells.iter().map(|cell| cell.shape.as_str()))
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(*name)).collect()
}

/// Where a shape stands on the page.
fn anchor(outcome: usize, shape: usize) -> String {
    format!("shape-{}-{}", outcome + 1, shape + 1)
}

/// A name for a file.
fn slug(text: &str) -> String {
    let parts = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    let mut slug = parts.collect::<Vec<_>>().join("-").to_lowercase();
    slug.truncate(60);
    slug
}

const STYLE: &str = include_str!("page/style.css");
/// The end of the year 9999: dates are written with four digits.
const LATEST_DATE: u64 = 253_402_300_800;

#[cfg(test)]
mod tests;
