//! Plots as SVG, in light and dark, for a wide and for a narrow screen.
//!
//! [`Bars`] and [`Lines`] say what is to be seen; they know no outcome. Every colour stands in the
//! SVG as its light variant, and [`DARK_STYLE`] replaces it where a dark page is preferred. Colours
//! are told apart by people who see fewer of them, and lines carry marks of different form.

mod axis;
mod bars;
mod lines;

use anyhow::Context as _;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub use self::axis::{Axis, number};
pub use self::bars::{Bar, Bars};
pub use self::lines::{Lines, Series};

/// A drawing in its two widths.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What a file of it is called, without the ending.
    pub name: String,
    /// The heading that it carries.
    pub title: String,
    /// For screens and paper.
    pub wide: String,
    /// For a telephone held upright.
    pub narrow: String,
}

/// What can be drawn in any width.
pub trait Draw {
    /// The heading.
    fn title(&self) -> &str;

    /// Pixels from top to bottom in a drawing that is `width` wide.
    fn height(&self, width: u32) -> u32;

    /// Draws it.
    ///
    /// # Errors
    /// None that an area in memory could cause; the drawing library types them all the same.
    fn draw(&self, area: &Area<'_>) -> anyhow::Result<()>;
}

/// Where it is drawn.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Plot {
    /// Draws both widths.
    ///
    /// # Errors
    /// As [`Draw::draw`].
    pub fn of(name: impl Into<String>, drawing: &impl Draw) -> anyhow::Result<Self> {
        let title = drawing.title().to_owned();
        let (wide, narrow) = (svg(drawing, WIDE)?, svg(drawing, NARROW)?);
        Ok(Self { name: name.into(), title, wide, narrow })
    }

    /// The wide drawing as a file of its own, which brings its dark variant along.
    #[must_use]
    pub fn file(&self) -> String {
        let style = format!(">\n<style>{DARK_STYLE}</style>\n");
        self.wide.replacen(">\n", &style, 1)
    }
}

fn svg(drawing: &impl Draw, width: u32) -> anyhow::Result<String> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, (width, drawing.height(width)));
    let area = area.into_drawing_area();
    area.fill(&PAPER).context("fill a drawing")?;
    drawing.draw(&area)?;
    area.present().context("finish a drawing")?;
    drop(area);
    let label = escape(drawing.title());
    Ok(text.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{label}\" "), 1))
}

/// What may stand in an element and in a quoted attribute.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Neither HTML nor XML may hold the other control characters.
            '\n' | '\t' => escaped.push(character),
            _ if character.is_control() => escaped.push('\u{FFFD}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Writes the title, and the legend below it where there are series to tell apart. Returns what is
/// left of the area.
fn head<'a>(area: &Area<'a>, title: &str, legend: &[(&str, usize)]) -> anyhow::Result<Area<'a>> {
    let (width, _) = area.dim_in_pixel();
    let places = legend_places(legend, width);
    let height = head_height(width, legend);
    area.draw(&Text::new(shortened(title, width), (MARGIN, 8), bold(TITLE_SIZE)))?;
    for ((label, index), (x, y)) in legend.iter().zip(places) {
        let y = y + TITLE_HEIGHT;
        let line = vec![(x, y + 8), (x + SWATCH, y + 8)];
        area.draw(&PathElement::new(line, colour(*index).stroke_width(2)))?;
        draw_mark(area, *index, (x + SWATCH / 2, y + 8))?;
        area.draw(&Text::new((*label).to_owned(), (x + SWATCH + 6, y), plain(TEXT_SIZE)))?;
    }
    let (_, below) = area.split_vertically(height);
    Ok(below)
}

fn head_height(width: u32, legend: &[(&str, usize)]) -> i32 {
    let rows = legend_places(legend, width).last().map_or(0, |(_, y)| y + LEGEND_ROW);
    TITLE_HEIGHT + rows
}

/// Where the entries of a legend stand, in rows that the width allows.
fn legend_places(legend: &[(&str, usize)], width: u32) -> Vec<(i32, i32)> {
    let right = i32::try_from(width).unwrap_or(i32::MAX) - MARGIN;
    let (mut x, mut y) = (MARGIN, 0);
    let mut places = Vec::new();
    for (label, _) in legend {
        let entry = SWATCH + 6 + text_width(label);
        if x > MARGIN && x + entry > right {
            (x, y) = (MARGIN, y + LEGEND_ROW);
        }
        places.push((x, y));
        x += entry + 18;
    }
    places
}

/// A mark whose form belongs to the series as its colour does.
fn draw_mark(area: &Area<'_>, index: usize, (x, y): (i32, i32)) -> anyhow::Result<()> {
    let (colour, around) = (colour(index), [(x - 3, y - 3), (x + 3, y + 3)]);
    let triangle = vec![(x, y - 4), (x + 4, y + 3), (x - 4, y + 3)];
    let diamond = vec![(x, y - 5), (x + 4, y), (x, y + 5), (x - 4, y)];
    match index % 6 {
        0 => area.draw(&Circle::new((x, y), 3, colour.filled()))?,
        1 => area.draw(&Polygon::new(triangle, colour.filled()))?,
        2 => area.draw(&Rectangle::new(around, colour.filled()))?,
        3 => area.draw(&Circle::new((x, y), 4, colour.stroke_width(2)))?,
        4 => area.draw(&Polygon::new(diamond, colour.filled()))?,
        _ => area.draw(&Cross::new((x, y), 4, colour.stroke_width(2)))?,
    }
    Ok(())
}

/// The colour of the subject with that index, light variant.
fn colour(index: usize) -> RGBColor {
    let [r, g, b] = COLOURS.get(index % COLOURS.len()).copied().unwrap_or_default();
    RGBColor(r, g, b)
}

fn plain(size: f64) -> TextStyle<'static> {
    styled(size, FontStyle::Normal, &INK)
}

fn muted(size: f64) -> TextStyle<'static> {
    styled(size, FontStyle::Normal, &MUTED)
}

fn bold(size: f64) -> TextStyle<'static> {
    styled(size, FontStyle::Bold, &INK)
}

fn styled(size: f64, style: FontStyle, colour: &RGBColor) -> TextStyle<'static> {
    // The SVG backend divides sizes by this.
    FontDesc::new(FontFamily::SansSerif, size * 1.24, style).color(colour)
}

fn at(style: TextStyle<'static>, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    style.pos(Pos::new(horizontal, vertical))
}

/// About as wide as a text of [`TEXT_SIZE`] gets in the fonts that browsers take for `sans-serif`.
fn text_width(text: &str) -> i32 {
    i32::try_from(text.chars().count()).unwrap_or(i32::MAX / 16) * 7
}

/// What of a title fits the width.
fn shortened(title: &str, width: u32) -> String {
    let room = usize::try_from(width).unwrap_or(0) / 8;
    if title.chars().count() <= room {
        return title.to_owned();
    }
    title.chars().take(room.saturating_sub(1)).chain(['\u{2026}']).collect()
}

/// For `prefers-color-scheme: dark`: the dark variant of every colour of a drawing.
pub const DARK_STYLE: &str = "\
@media screen and (prefers-color-scheme:dark){\
svg [fill='#FFFFFF']{fill:#161A1F}svg [stroke='#FFFFFF']{stroke:#161A1F}\
svg [fill='#1B1F24']{fill:#E6E8EB}svg [stroke='#1B1F24']{stroke:#E6E8EB}\
svg [fill='#59636E']{fill:#A0AAB5}svg [stroke='#59636E']{stroke:#A0AAB5}\
svg [fill='#D9DEE3']{fill:#363C44}svg [stroke='#D9DEE3']{stroke:#363C44}\
svg [fill='#0072B2']{fill:#4FA8E0}svg [stroke='#0072B2']{stroke:#4FA8E0}\
svg [fill='#D55E00']{fill:#FF8A45}svg [stroke='#D55E00']{stroke:#FF8A45}\
svg [fill='#008A64']{fill:#2FC79B}svg [stroke='#008A64']{stroke:#2FC79B}\
svg [fill='#C0619A']{fill:#EBA5CC}svg [stroke='#C0619A']{stroke:#EBA5CC}\
svg [fill='#A87400']{fill:#F0C04C}svg [stroke='#A87400']{stroke:#F0C04C}\
svg [fill='#3D95CB']{fill:#A8DBFF}svg [stroke='#3D95CB']{stroke:#A8DBFF}\
svg [fill='#6B4C9A']{fill:#BBA0E5}svg [stroke='#6B4C9A']{stroke:#BBA0E5}\
svg [fill='#5F6368']{fill:#C4C7CB}svg [stroke='#5F6368']{stroke:#C4C7CB}}";

/// After Okabe and Ito, darkened where white paper asks for it.
const COLOURS: [[u8; 3]; 8] = [
    [0x00, 0x72, 0xB2],
    [0xD5, 0x5E, 0x00],
    [0x00, 0x8A, 0x64],
    [0xC0, 0x61, 0x9A],
    [0xA8, 0x74, 0x00],
    [0x3D, 0x95, 0xCB],
    [0x6B, 0x4C, 0x9A],
    [0x5F, 0x63, 0x68],
];
const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
const INK: RGBColor = RGBColor(0x1B, 0x1F, 0x24);
const MUTED: RGBColor = RGBColor(0x59, 0x63, 0x6E);
const GRID: RGBColor = RGBColor(0xD9, 0xDE, 0xE3);

/// Two of them stand beside each other on a page of 1,200 pixels.
const WIDE: u32 = 568;
/// A telephone's 390 pixels less the margins of the page.
const NARROW: u32 = 358;
const MARGIN: i32 = 10;
const TITLE_HEIGHT: i32 = 36;
const LEGEND_ROW: i32 = 20;
const SWATCH: i32 = 22;
const TITLE_SIZE: f64 = 15.0;
const TEXT_SIZE: f64 = 12.5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_has_a_dark_variant() {
        let inks = [INK, MUTED, GRID].map(|RGBColor(r, g, b)| [r, g, b]);
        for [r, g, b] in COLOURS.into_iter().chain(inks) {
            let light = format!("[stroke='#{r:02X}{g:02X}{b:02X}']{{stroke:#");
            assert!(DARK_STYLE.contains(&light), "{light}");
        }
    }

    #[test]
    fn a_file_brings_its_dark_variant_along() {
        let bar = Bar { label: "a <b>".to_owned(), colour: 0, value: Some((1.0, 0.5, 2.0)) };
        let bars = Bars {
            title: "x & y".to_owned(),
            unit: "ns".to_owned(),
            axis: "CPU".to_owned(),
            bars: vec![bar],
        };
        let plot = Plot::of("x", &bars).unwrap();
        assert!(plot.file().contains("<style>") && !plot.wide.contains("<style>"));
        assert!(plot.wide.contains("aria-label=\"x &amp; y\""), "{}", plot.wide);
        assert!(plot.wide.contains("a &lt;b&gt;"), "{}", plot.wide);
    }

    #[test]
    fn a_legend_wraps_before_the_margin() {
        let legend = [("a long name of a subject", 0), ("another long name", 1), ("short", 2)];
        let places = legend_places(&legend, NARROW);
        assert_eq!(places[0], (MARGIN, 0));
        assert_eq!(places[1], (MARGIN, LEGEND_ROW));
        assert!(places[2].1 == LEGEND_ROW && places[2].0 > MARGIN);
    }

    #[test]
    fn what_would_end_an_element_is_escaped() {
        assert_eq!(escape("</p>\"'&\u{1}"), "&lt;/p&gt;&quot;&#39;&amp;\u{FFFD}");
    }
}
