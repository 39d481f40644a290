//! A horizontal bar for each subject: the median, with the rounds' range across its end.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{
    Area, Axis, Draw, GRID, INK, MARGIN, MUTED, PAPER, TEXT_SIZE, at, colour, head, head_height,
    muted, number, plain, text_width,
};

/// Bars below each other.
#[derive(Clone, Debug)]
pub struct Bars {
    /// The heading.
    pub title: String,
    /// What the axis measures, with its unit.
    pub axis: String,
    /// Stands behind every value.
    pub unit: String,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// The subject.
    pub label: String,
    /// Its index among all subjects.
    pub colour: usize,
    /// Median, lowest and highest; `None` where the measurement is void.
    pub value: Option<(f64, f64, f64)>,
}

impl Draw for Bars {
    fn title(&self) -> &str {
        &self.title
    }

    fn height(&self, width: u32) -> u32 {
        let bars = i32::try_from(self.bars.len()).unwrap_or(1_000).max(1);
        u32::try_from(head_height(width, &[]) + bars * BAR_ROW + AXIS_HEIGHT).unwrap_or(400)
    }

    fn draw(&self, area: &Area<'_>) -> anyhow::Result<()> {
        let body = head(area, &self.title, &[])?;
        let (width, height) = body.dim_in_pixel();
        let (width, height) = (i32::try_from(width)?, i32::try_from(height)?);
        let labels = self.bars.iter().map(|bar| text_width(&bar.label)).max().unwrap_or(0);
        let left = (labels + MARGIN + 8).min(width / 2);
        let values = self.bars.iter().map(|bar| text_width(&self.text(bar))).max().unwrap_or(0);
        let room = f64::from((width - left - MARGIN).max(1));
        let highest = self.bars.iter().filter_map(|bar| bar.value).map(|(_, _, high)| high);
        let highest = highest.fold(0.0, f64::max);
        // Room for the value behind the longest bar, whatever its length.
        let share = 1.0 - f64::from(values + 14) / room;
        let end = if highest > 0.0 { highest / share.max(0.3) } else { 1.0 };
        let axis = Axis::linear(self.axis.as_str(), 0.0, end, (room / 90.0) as u32);
        let scale = room / end;
        let x_of = |value: f64| left + (value * scale).round() as i32;
        let bottom = height - AXIS_HEIGHT;
        for (tick, text) in axis.ticks.iter().filter(|(tick, _)| *tick <= end) {
            let x = x_of(*tick);
            body.draw(&PathElement::new(vec![(x, 0), (x, bottom)], GRID))?;
            let style = at(muted(TEXT_SIZE - 1.0), HPos::Center, VPos::Top);
            body.draw(&Text::new(text.clone(), (x, bottom + 5), style))?;
        }
        let style = at(muted(TEXT_SIZE), HPos::Center, VPos::Top);
        let middle = left + (width - MARGIN - left) / 2;
        body.draw(&Text::new(axis.label.clone(), (middle, bottom + 22), style))?;
        for (bar, y) in self.bars.iter().zip((0..).step_by(BAR_ROW as usize)) {
            self.draw_bar(&body, bar, left, y, &x_of)?;
        }
        body.draw(&PathElement::new(vec![(left, 0), (left, bottom)], MUTED))?;
        Ok(())
    }
}

impl Bars {
    fn draw_bar(
        &self,
        body: &Area<'_>,
        bar: &Bar,
        left: i32,
        y: i32,
        x_of: &impl Fn(f64) -> i32,
    ) -> anyhow::Result<()> {
        let middle = y + BAR_ROW / 2;
        let style = at(plain(TEXT_SIZE), HPos::Right, VPos::Center);
        body.draw(&Text::new(bar.label.clone(), (left - 8, middle), style))?;
        let (end, style) = match bar.value {
            Some((median, low, high)) => {
                let corners = [(left, y + 5), (x_of(median), y + BAR_ROW - 5)];
                body.draw(&Rectangle::new(corners, colour(bar.colour).filled()))?;
                let (low, high) = (x_of(low), x_of(high));
                // On paper first, so that it is seen upon the bar as well.
                for (style, half) in [(PAPER.stroke_width(4), 5), (INK.stroke_width(1), 4)] {
                    let ends = [low, high].map(|x| vec![(x, middle - half), (x, middle + half)]);
                    let across = vec![(low, middle), (high, middle)];
                    for line in ends.into_iter().chain([across]) {
                        body.draw(&PathElement::new(line, style))?;
                    }
                }
                (x_of(median).max(high), plain(TEXT_SIZE))
            }
            None => (left, muted(TEXT_SIZE)),
        };
        let style = at(style, HPos::Left, VPos::Center);
        body.draw(&Text::new(self.text(bar), (end + 8, middle), style))?;
        Ok(())
    }

    fn text(&self, bar: &Bar) -> String {
        let value = bar.value.map(|(median, _, _)| format!("{} {}", number(median), self.unit));
        value.map_or_else(|| "void".to_owned(), |text| text.trim_end().to_owned())
    }
}

const BAR_ROW: i32 = 28;
const AXIS_HEIGHT: i32 = 46;
