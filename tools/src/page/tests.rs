use super::*;
use crate::measure::Host;
use crate::result::{Better, Second};
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};

const SUBJECTS: [&str; 6] = ["uring", "mmsg", "tokio-uring", "loop", "plain-mmsg", "nginx"];

/// Every shape with every subject, and figures of which no two are equal.
fn outcome(shapes: usize, subjects: usize, seconds: u32) -> Outcome {
    let host = Host {
        hostname: "relay <7>".to_owned(),
        kernel: "6.18 & more".to_owned(),
        cpu_model: "a \"CPU\"".to_owned(),
        cpus: 2,
        unix_seconds: 1_795_000_000,
        command: "ringway-bench run srt --json 'a b'".to_owned(),
    };
    let mut outcome = Outcome::new("Shapes & <subjects>", host);
    outcome.note("rounds", 3);
    for shape in 0..shapes {
        for (index, subject) in SUBJECTS.into_iter().take(subjects).enumerate() {
            outcome.cells.push(cell(shape, index, subject, seconds));
        }
    }
    outcome
}

fn cell(shape: usize, index: usize, subject: &str, seconds: u32) -> Cell {
    let mut cell = Cell::new(format!("up, {shape} sessions, <trains>"), subject);
    let base = (shape * 10 + index) as f64 + 200.125;
    let rounds = |factor: f64| vec![base * factor, base * factor * 1.01, base * factor * 1.02];
    cell.add(name::CPU_NS_PER_PACKET, "ns", Better::Lower, rounds(1.0));
    cell.add(name::LATENCY_P50, "ns", Better::Lower, rounds(97.0));
    for base in ["loop", "nginx"].into_iter().filter(|base| *base != subject) {
        cell.add(&name::ratio_of(base), "", Better::Lower, rounds(1.0 / 512.0));
    }
    cell.add(name::DELIVERED_PPS, "1/s", Better::Higher, rounds(1e3));
    let mut histogram = crate::payload::nanoseconds();
    (1..2_000).for_each(|i| histogram.saturating_record(i * 97 + index as u64));
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(&histogram, &mut bytes).unwrap();
    cell.latency = Some(base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes));
    cell.seconds = (0..seconds)
        .map(|second| Second {
            at_s: f64::from(second) + 1.0,
            sent: 1_000,
            received: 990 + u64::from(second % 3),
            lost: u64::from(second % 2),
            reordered: 0,
            cpu_ns: 300_000,
            p50_ns: 9_000,
            p99_ns: 20_000 + u64::from(second),
        })
        .collect();
    cell
}

fn page(outcome: &Outcome) -> Page {
    Page::of(std::slice::from_ref(outcome), None).unwrap()
}

/// Whether every element is closed where it should be, and no stray bracket is left.
fn assert_well_formed(markup: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = markup;
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "a bracket outside of a tag: {:.80}", rest);
        let tag = &rest[start + 1..];
        let end = tag.find('>').unwrap_or_else(|| panic!("a tag without an end: {tag:.80}"));
        let inside = &tag[..end];
        rest = &tag[end + 1..];
        let name = inside.split([' ', '\n']).next().unwrap();
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "before {rest:.80}"),
            None if inside.starts_with('!') || inside.ends_with('/') => {}
            None => open.push(name),
        }
        if name == "style" {
            // CSS may hold brackets of its own.
            rest = &rest[rest.find("</style>").unwrap()..];
        }
        let quotes = inside.matches('"').count();
        assert!(quotes.is_multiple_of(2), "an attribute without an end: {inside}");
    }
    assert_eq!(open, Vec::<&str>::new());
}

#[test]
fn every_element_of_every_page_is_closed() {
    for (shapes, subjects, seconds) in [(0, 0, 0), (1, 2, 0), (3, 6, 10)] {
        assert_well_formed(&page(&outcome(shapes, subjects, seconds)).html);
    }
}

#[test]
fn every_plot_is_a_file_of_its_own() {
    let page = page(&outcome(2, 6, 10));
    let names: BTreeSet<&str> = page.plots.iter().map(|plot| plot.name.as_str()).collect();
    assert_eq!(names.len(), page.plots.len());
    for plot in &page.plots {
        assert_well_formed(&plot.file());
        assert_well_formed(&plot.narrow);
    }
}

#[test]
fn all_figures_of_the_outcome_stand_in_the_tables() {
    let outcome = outcome(3, 6, 0);
    let html = page(&outcome).html;
    for figure in outcome.cells.iter().flat_map(|cell| &cell.figures) {
        for value in [figure.median, figure.low, figure.high] {
            assert!(html.contains(&format!("<data value=\"{value}\">")), "{value}");
        }
        let rounds: Vec<String> = figure.rounds.iter().map(f64::to_string).collect();
        assert!(html.contains(&format!("title=\"rounds: {}\"", rounds.join(", "))));
    }
}

#[test]
fn a_shape_has_its_plots_in_both_widths() {
    let page = page(&outcome(1, 3, 10));
    let titles: Vec<&str> = page.plots.iter().map(|plot| plot.title.as_str()).collect();
    assert_eq!(
        titles,
        [
            "CPU time per packet: median and range",
            "One-way latency by percentile",
            "Delivered packets over time",
            "Lost packets over time",
            "CPU time per packet over time",
            "99 % latency over time"
        ]
    );
    assert_eq!(page.html.matches("<svg ").count(), 2 * titles.len());
    assert!(page.html.contains("No packet was reordered in any second"));
}

#[test]
fn axes_carry_their_units() {
    let page = page(&outcome(1, 3, 10));
    for unit in ["CPU time per packet (ns)", "latency (us, logarithmic)", "(1/s)", "(s)"] {
        assert!(page.html.contains(unit), "{unit}");
    }
}

#[test]
fn what_is_void_is_named_with_its_reason_and_drawn_nowhere() {
    let mut outcome = outcome(1, 2, 10);
    let figure = outcome.cells[0].figures[0].median;
    outcome.cells[0].void = Some("the <generator> was late".to_owned());
    let page = page(&outcome);
    assert_well_formed(&page.html);
    assert!(page.html.contains("<strong>1 of 2 measurements are void</strong>"));
    assert!(page.html.contains("<strong>void</strong>: the &lt;generator&gt; was late"));
    assert!(!page.html.contains(&format!("<data value=\"{figure}\">")));
    let latency = page.plots.iter().find(|plot| plot.name.ends_with("latency")).unwrap();
    assert!(!latency.wide.contains("uring") && latency.wide.contains("mmsg"));
}

#[test]
fn nothing_is_fetched_and_nothing_runs() {
    let html = page(&outcome(2, 2, 5)).html;
    for forbidden in ["<script", "<iframe", "@import", "url(", "src=", "https://"] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    let addresses = html.matches("http://").count();
    assert_eq!(addresses, html.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
}

#[test]
fn ratios_refer_to_the_loop_unless_another_base_is_wanted() {
    let outcome = outcome(1, 6, 0);
    let html = page(&outcome).html;
    assert!(html.contains("<th scope=\"col\">loop<small>base of the ratios</small>"), "{html}");
    let html = Page::of(&[outcome], Some("nginx")).unwrap().html;
    assert!(html.contains("<th scope=\"col\">nginx<small>base of the ratios</small>"), "{html}");
}

#[test]
fn the_ratio_beside_a_cost_is_the_one_within_rounds() {
    let mut outcome = outcome(1, 6, 0);
    let uring = outcome.cells.iter_mut().find(|cell| cell.subject == "uring").unwrap();
    uring.figures.retain(|figure| figure.name != "of_loop");
    uring.add("of_loop", "", Better::Lower, vec![0.0625]);
    let html = page(&outcome).html;
    assert!(html.contains("</data><small>0.06&#215;</small>"), "{html}");
    assert!(html.contains("CPU time per packet, as a multiple of loop"), "{html}");
}

#[test]
fn medians_of_subjects_that_took_no_turns_make_no_ratio() {
    let mut outcome = outcome(1, 6, 0);
    for cell in &mut outcome.cells {
        cell.figures.retain(|figure| !figure.name.starts_with("of_"));
    }
    let html = page(&outcome).html;
    assert!(!html.contains("&#215;") && !html.contains("base of the ratios"), "{html}");
}

#[test]
fn a_latency_that_is_no_histogram_is_an_error_with_its_place() {
    let mut outcome = outcome(1, 1, 0);
    outcome.cells[0].latency = Some("AAAA".to_owned());
    let error = Page::of(&[outcome], None).unwrap_err();
    assert!(format!("{error:#}").contains("no V2 histogram"), "{error:#}");
}

#[test]
fn file_names_hold_letters_digits_and_dashes() {
    assert_eq!(slug("up, 100 sessions / <trains>"), "up-100-sessions-trains");
}
