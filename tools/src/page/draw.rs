//! From the cells of a shape to its plots.

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;

use crate::plot::{Axis, Bar, Bars, Lines, Plot, Series};
use crate::result::{Cell, Second, name};

/// What there is to see of a shape, and what there is not.
pub(super) struct Drawings {
    pub(super) plots: Vec<Plot>,
    pub(super) notes: Vec<String>,
}

impl Drawings {
    /// Draws what the cells that count have. `subjects` are those of the whole outcome: each has the
    /// same colour everywhere.
    pub(super) fn of(cells: &[&Cell], subjects: &[&str], stem: &str) -> anyhow::Result<Self> {
        let scene = Scene { cells, subjects, stem };
        let mut drawings = Self { plots: Vec::new(), notes: Vec::new() };
        for (figure, title, axis, unit) in [
            (name::CPU_NS_PER_PACKET, "CPU time per packet", "CPU time per packet (ns)", "ns"),
            (name::CONNECTS_PER_SECOND, "Completed per second", "completed per second (1/s)", "/s"),
        ] {
            let bars = scene.bars(figure, title, axis, unit);
            drawings.plots.extend(bars.map(|bars| scene.plot(figure, &bars)).transpose()?);
        }
        let latency = scene.latency()?;
        drawings.plots.extend(latency.map(|lines| scene.plot("latency", &lines)).transpose()?);
        if scene.followed().next().is_some() {
            scene.draw_courses(&mut drawings)?;
        }
        Ok(drawings)
    }
}

/// The cells of a shape.
struct Scene<'a> {
    cells: &'a [&'a Cell],
    subjects: &'a [&'a str],
    stem: &'a str,
}

/// A quantity over time.
struct Course {
    name: &'static str,
    title: &'static str,
    axis: &'static str,
    /// Of a second that took the given time; `None` where it is not known.
    value: fn(&Second, f64) -> Option<f64>,
    /// What is said instead where it is 0 throughout.
    nothing: Option<&'static str>,
}

impl<'a> Scene<'a> {
    fn plot(&self, name: &str, drawing: &impl crate::plot::Draw) -> anyhow::Result<Plot> {
        let name = name.replace('_', "-");
        Plot::of(format!("{}-{name}", self.stem), drawing)
            .with_context(|| format!("draw {name} of {}", self.stem))
    }

    fn colour(&self, cell: &Cell) -> usize {
        self.subjects.iter().position(|subject| *subject == cell.subject).unwrap_or(0)
    }

    fn counting(&self) -> impl Iterator<Item = &'a Cell> {
        self.cells.iter().copied().filter(|cell| cell.void.is_none())
    }

    /// Cells whose course can be drawn.
    fn followed(&self) -> impl Iterator<Item = &'a Cell> {
        self.counting().filter(|cell| cell.seconds.len() > 1)
    }

    /// A bar for each subject that has the figure or is void. `None` where none has it.
    fn bars(&self, figure: &str, title: &str, axis: &str, unit: &str) -> Option<Bars> {
        let bars = self.cells.iter().filter_map(|cell| {
            let value = match (&cell.void, cell.figure(figure)) {
                (Some(_), _) => None,
                (None, figure) => figure.map(|f| Some((f.median, f.low, f.high)))?,
            };
            Some(Bar { label: cell.subject.clone(), colour: self.colour(cell), value })
        });
        let bars: Vec<Bar> = bars.collect();
        let has_any = bars.iter().any(|bar| bar.value.is_some());
        let (title, axis, unit) = (title.to_owned(), axis.to_owned(), unit.to_owned());
        has_any.then(|| Bars { title: format!("{title}: median and range"), unit, axis, bars })
    }

    /// The share of packets that took at most how long, for all subjects with a histogram.
    fn latency(&self) -> anyhow::Result<Option<Lines>> {
        let (mut series, mut nines) = (Vec::new(), 1);
        for cell in self.counting() {
            let Some(histogram) = cell.latency.as_deref().map(read_histogram).transpose()? else {
                continue;
            };
            if histogram.is_empty() {
                continue;
            }
            // Beyond the last whole nine, a line would show single packets.
            let own_nines = histogram.len().ilog10().clamp(1, NINES_MAX);
            nines = nines.max(own_nines);
            series.push(Series {
                label: cell.subject.clone(),
                colour: self.colour(cell),
                points: percentile_points(&histogram, own_nines),
            });
        }
        let all = series.iter().flat_map(|series| series.points.iter().map(|(_, us)| *us));
        let (low, high) =
            all.fold((f64::INFINITY, 0.0_f64), |(low, high), us| (low.min(us), high.max(us)));
        if series.is_empty() {
            return Ok(None);
        }
        for (_, us) in series.iter_mut().flat_map(|series| &mut series.points) {
            *us = us.log10();
        }
        Ok(Some(Lines {
            title: "One-way latency by percentile".to_owned(),
            x: Axis::percentiles(nines),
            y: Axis::logarithmic("latency (us, logarithmic)", low, high),
            series,
        }))
    }

    fn draw_courses(&self, drawings: &mut Drawings) -> anyhow::Result<()> {
        for course in &COURSES {
            let series: Vec<Series> =
                self.followed().filter_map(|c| self.course(c, course)).collect();
            let points = || series.iter().flat_map(|series| &series.points);
            let highest = points().map(|(_, value)| *value).fold(0.0, f64::max);
            if let Some(nothing) = course.nothing
                && highest == 0.0
                && !series.is_empty()
            {
                drawings.notes.push(nothing.to_owned());
                continue;
            }
            if series.is_empty() {
                continue;
            }
            let end = points().map(|(at, _)| *at).fold(0.0, f64::max);
            let lines = Lines {
                title: course.title.to_owned(),
                x: Axis::linear("time since the start (s)", 0.0, end, 5),
                y: Axis::linear(course.axis, 0.0, highest, 5),
                series,
            };
            drawings.plots.push(self.plot(course.name, &lines)?);
        }
        Ok(())
    }

    fn course(&self, cell: &Cell, course: &Course) -> Option<Series> {
        let mut before = 0.0;
        let points = cell.seconds.iter().filter_map(|second| {
            let took = second.at_s - before;
            before = second.at_s;
            Some((second.at_s, (course.value)(second, took)?))
        });
        let points: Vec<(f64, f64)> = points.filter(|(_, value)| value.is_finite()).collect();
        let (label, colour) = (cell.subject.clone(), self.colour(cell));
        (points.len() > 1).then_some(Series { label, colour, points })
    }
}

/// Coordinates of [`Axis::percentiles`] and microseconds.
fn percentile_points(histogram: &Histogram<u64>, nines: u32) -> Vec<(f64, f64)> {
    let point = |i: u32| {
        let x = f64::from(i) * f64::from(nines) / f64::from(STEPS);
        let ns = histogram.value_at_quantile(1.0 - 10_f64.powf(-x)).max(1);
        (x, ns as f64 / 1e3)
    };
    (0..=STEPS).map(point).collect()
}

/// Reads what [`Cell::latency`] holds.
fn read_histogram(text: &str) -> anyhow::Result<Histogram<u64>> {
    let bytes = BASE64_STANDARD.decode(text.trim()).context("a latency is not base64")?;
    let read = Deserializer::new().deserialize(&mut bytes.as_slice());
    read.context("a latency is no V2 histogram")
}

const COURSES: [Course; 5] = [
    Course {
        name: "throughput",
        title: "Delivered packets over time",
        axis: "1,000 packets/s",
        value: |second, took| Some(second.received as f64 / took / 1e3),
        nothing: None,
    },
    Course {
        name: "loss",
        title: "Lost packets over time",
        axis: "packets lost per second (1/s)",
        value: |second, took| Some(second.lost as f64 / took),
        nothing: Some("No packet was lost in any second of any subject."),
    },
    Course {
        name: "reordering",
        title: "Reordered packets over time",
        axis: "packets reordered per second (1/s)",
        value: |second, took| Some(second.reordered as f64 / took),
        nothing: Some("No packet was reordered in any second of any subject."),
    },
    Course {
        name: "cpu",
        title: "CPU time per packet over time",
        axis: "CPU time per packet (ns)",
        value: |second, _| {
            let is_known = second.cpu_ns > 0 && second.received > 0;
            is_known.then(|| second.cpu_ns as f64 / second.received as f64)
        },
        nothing: None,
    },
    Course {
        name: "latency-over-time",
        title: "99 % latency over time",
        axis: "99 % latency (us)",
        value: |second, _| (second.p99_ns > 0).then(|| second.p99_ns as f64 / 1e3),
        nothing: None,
    },
];
const NINES_MAX: u32 = 5;
const STEPS: u32 = 100;
