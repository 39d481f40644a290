//! Lines over a common axis, with a legend and a mark of its own for each.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

use super::{
    Area, Axis, Draw, GRID, MUTED, TEXT_SIZE, colour, draw_mark, head, head_height, muted,
};

/// Lines over an axis.
#[derive(Clone, Debug)]
pub struct Lines {
    /// The heading.
    pub title: String,
    /// From left to right.
    pub x: Axis,
    /// From bottom to top.
    pub y: Axis,
    /// In the order of the legend.
    pub series: Vec<Series>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Series {
    /// The subject.
    pub label: String,
    /// Its index among all subjects.
    pub colour: usize,
    /// In the coordinates of the axes, from left to right.
    pub points: Vec<(f64, f64)>,
}

impl Lines {
    fn legend(&self) -> Vec<(&str, usize)> {
        self.series.iter().map(|series| (series.label.as_str(), series.colour)).collect()
    }
}

impl Draw for Lines {
    fn title(&self) -> &str {
        &self.title
    }

    fn height(&self, width: u32) -> u32 {
        u32::try_from(head_height(width, &self.legend())).unwrap_or(0) + BODY_HEIGHT
    }

    fn draw(&self, area: &Area<'_>) -> anyhow::Result<()> {
        let body = head(area, &self.title, &self.legend())?;
        let (width, _) = body.dim_in_pixel();
        let labels = u32::try_from(self.y.text_len()).unwrap_or(0) * 7 + 32;
        let mut chart = ChartBuilder::on(&body)
            .margin_right(24)
            .margin_top(8)
            .x_label_area_size(44)
            .y_label_area_size(labels.min(width / 3))
            .build_cartesian_2d(Scale(&self.x), Scale(&self.y))?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(MUTED)
            .label_style(muted(TEXT_SIZE - 1.0))
            .axis_desc_style(muted(TEXT_SIZE))
            .x_desc(self.x.label.as_str())
            .y_desc(self.y.label.as_str())
            .draw()?;
        for series in &self.series {
            let points = thinned(&series.points);
            let style = colour(series.colour).stroke_width(2);
            chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
            let step = points.len().div_ceil(MARKS_MAX).max(1);
            for point in points.iter().step_by(step) {
                let at = chart.backend_coord(point);
                draw_mark(area, series.colour, at)?;
            }
        }
        Ok(())
    }
}

/// An axis as the drawing library wants it: with the ticks that it has, whatever the room.
struct Scale<'a>(&'a Axis);

impl Ranged for Scale<'_> {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let (low, high) = self.0.range;
        let share = ((value - low) / (high - low)).clamp(0.0, 1.0);
        first + (f64::from(last - first) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.0.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> Range<f64> {
        self.0.range.0..self.0.range.1
    }
}

impl ValueFormatter<f64> for Scale<'_> {
    fn format_ext(&self, value: &f64) -> String {
        self.0.text(*value)
    }
}

/// At most [`POINTS_MAX`] points: of every stretch its highest, so that no peak is lost.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let stretch = points.len().div_ceil(POINTS_MAX).max(1);
    let highest = |part: &[(f64, f64)]| part.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    points.chunks(stretch).filter_map(highest).collect()
}

const BODY_HEIGHT: u32 = 250;
const POINTS_MAX: usize = 150;
const MARKS_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_peaks() {
        let points: Vec<(f64, f64)> =
            (0..10_000).map(|i| (f64::from(i), if i == 4_711 { 9.0 } else { 1.0 })).collect();
        let thinned = thinned(&points);
        assert!(thinned.len() <= POINTS_MAX);
        assert!(thinned.contains(&(4_711.0, 9.0)));
    }
}
