//! Answers of the system API as tables for a person.
//!
//! A table fits the terminal: long cells are cut, lines never wrap. Into a pipe or a file
//! everything is written in full. Members that an answer lacks are shown as `-`, so that one
//! version of the program can ask another.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, presets};
use serde_json::Value;

/// Finds something in an item and writes it as a person reads it.
type Show = fn(&Value) -> String;

/// One column: its heading, where its text comes from, and what happens to it in a narrow terminal.
struct Column {
    heading: &'static str,
    cell: Show,
    is_number: bool,
    /// Gives way when the table is too wide.
    may_shrink: bool,
    /// Left out of terminals that are narrower.
    from_width: u16,
}

impl Column {
    const fn shown_from(self, from_width: u16) -> Self {
        Self { from_width, ..self }
    }
}

const fn text(heading: &'static str, cell: Show) -> Column {
    Column { heading, cell, is_number: false, may_shrink: false, from_width: 0 }
}

const fn long_text(heading: &'static str, cell: Show) -> Column {
    Column { heading, cell, is_number: false, may_shrink: true, from_width: 0 }
}

const fn number(heading: &'static str, cell: Show) -> Column {
    Column { heading, cell, is_number: true, may_shrink: false, from_width: 0 }
}

/// `{"sessions": [...]}`
pub(super) fn sessions(answer: &Value, width: Option<u16>) -> String {
    const COLUMNS: &[Column] = &[
        long_text("ID", |session| scalar(session, "/id")),
        text("PROTO", |session| scalar(session, "/proto")).shown_from(88),
        text("ROLE", |session| scalar(session, "/role")),
        long_text("STREAM", |session| short_stream(&scalar(session, "/stream"))),
        long_text("CLIENT", |session| scalar(session, "/client")),
        long_text("ORIGIN", |session| scalar(session, "/origin")),
        number("AGE", |session| shown(session, "/age_seconds", age)),
        number("BITRATE", |session| shown(session, media_bitrate(session), bitrate)),
        number("RTT", |session| shown(session, "/srt/rtt_us", milliseconds)).shown_from(96),
        number("LOSS", |session| shown(session, "/srt/loss_client_to_relay", percent))
            .shown_from(104),
        text("STATE", |session| scalar(session, "/state")).shown_from(112),
    ];
    list(answer, "sessions", COLUMNS, width)
}

/// `{"origins": [...]}`
pub(super) fn origins(answer: &Value, width: Option<u16>) -> String {
    const COLUMNS: &[Column] = &[
        long_text("NAME", |origin| scalar(origin, "/name")),
        long_text("IP", |origin| scalar(origin, "/ip")),
        number("SRT", |origin| port(origin, "srt")),
        number("RTC", |origin| port(origin, "rtc")).shown_from(96),
        number("API", |origin| port(origin, "api")).shown_from(96),
        text("STATE", |origin| scalar(origin, "/state")),
        number("SESSIONS", |origin| scalar(origin, "/sessions")),
        number("CAPACITY", |origin| scalar(origin, "/capacity")).shown_from(96),
        number("HEARTBEAT", |origin| shown(origin, "/last_seen_seconds", age)),
        text("TAKES", |origin| joined(origin, "/takes")).shown_from(120),
        long_text("SERVER", |origin| scalar(origin, "/server")).shown_from(112),
        long_text("REASON", |origin| scalar(origin, "/reason")),
    ];
    list(answer, "origins", COLUMNS, width)
}

/// `{"streams": [...]}`
pub(super) fn streams(answer: &Value, width: Option<u16>) -> String {
    const COLUMNS: &[Column] = &[
        long_text("STREAM", |stream| short_stream(&scalar(stream, "/stream"))),
        long_text("ORIGIN", |stream| scalar(stream, "/origin")),
        number("PUBLISHERS", |stream| scalar(stream, "/publishers")),
        number("PLAYERS", |stream| scalar(stream, "/players")),
        number("UNCHANGED", |stream| shown(stream, "/unchanged_seconds", age)),
    ];
    list(answer, "streams", COLUMNS, width)
}

/// One session: a line for each thing that is known.
pub(super) fn session(answer: &Value) -> String {
    const LINES: &[(&str, Show)] = &[
        ("ID", |session| scalar(session, "/id")),
        ("Protocol", |session| scalar(session, "/proto")),
        ("Role", |session| scalar(session, "/role")),
        ("Stream", |session| scalar(session, "/stream")),
        ("Client", |session| scalar(session, "/client")),
        ("Origin", |session| scalar(session, "/origin")),
        ("Shard", |session| scalar(session, "/shard")),
        ("State", |session| scalar(session, "/state")),
        ("Age", |session| shown(session, "/age_seconds", age)),
        ("From the client", |session| flow(session, "client_in")),
        ("To the client", |session| flow(session, "client_out")),
        ("From the origin", |session| flow(session, "origin_in")),
        ("To the origin", |session| flow(session, "origin_out")),
        ("RTT end to end", |session| shown(session, "/srt/rtt_us", milliseconds)),
        ("RTT to the client", |session| shown(session, "/srt/rtt_client_us", milliseconds)),
        ("RTT to the origin", |session| shown(session, "/srt/rtt_origin_us", milliseconds)),
        ("Loss before the relay", |session| shown(session, "/srt/loss_client_to_relay", percent)),
        ("Loss behind the relay", |session| shown(session, "/srt/loss_relay_to_origin", percent)),
        ("Retransmitted", |session| scalar(session, "/srt/retransmits")),
        ("Latency", |session| shown(session, "/srt/latency_ms", |ms| format!("{ms} ms"))),
        ("Encryption", |session| scalar(session, "/srt/encryption")),
        ("SRT version", |session| scalar(session, "/srt/version")),
        ("ICE user names", |session| scalar(session, "/webrtc/ufrag_pair")),
        ("Proven addresses", |session| joined(session, "/webrtc/addresses")),
        ("SSRCs", |session| joined(session, "/webrtc/ssrcs")),
    ];
    let known = LINES.iter().map(|(name, value)| (name, value(answer)));
    known
        .filter(|(_, value)| value != ABSENT)
        .map(|(name, value)| format!("{name:<22} {value}\n"))
        .collect()
}

/// `width` stands in for the terminal's; without either, a table is as wide as it needs.
fn list(answer: &Value, member: &str, columns: &[Column], width: Option<u16>) -> String {
    let items = answer.get(member).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if items.is_empty() {
        return format!("no {member}\n{}", incomplete(answer, 0));
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(width) = width {
        table.set_width(width);
    }
    let width = table.width().unwrap_or(u16::MAX);
    // A column that nobody fills belongs to another version, or to another protocol.
    let columns: Vec<(&Column, Vec<String>)> = columns
        .iter()
        .filter(|column| column.from_width <= width)
        .map(|column| (column, items.iter().map(column.cell).collect::<Vec<String>>()))
        .filter(|(_, cells)| cells.iter().any(|cell| cell != ABSENT))
        .collect();
    table.set_header(one_line(columns.iter().map(|(column, _)| column.heading.to_owned())));
    for row in 0..items.len() {
        table.add_row(one_line(
            columns.iter().map(|(_, cells)| cells.get(row).cloned().unwrap_or_default()),
        ));
    }
    for ((column, _), shown) in columns.iter().zip(table.column_iter_mut()) {
        shown.set_padding((0, 2));
        if column.is_number {
            shown.set_cell_alignment(CellAlignment::Right);
        }
        if !column.may_shrink {
            shown.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    format!("{}\n{}", table.trim_fmt(), incomplete(answer, items.len()))
}

fn one_line(cells: impl Iterator<Item = String>) -> Row {
    let mut row = Row::from(cells.collect::<Vec<String>>());
    row.max_height(1);
    row
}

/// Text and numbers as they are, without what a terminal would obey.
fn scalar(item: &Value, pointer: &str) -> String {
    match item.pointer(pointer) {
        Some(Value::String(text)) if !text.is_empty() => printable(text),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(is_true)) => if *is_true { "yes" } else { "no" }.to_owned(),
        Some(Value::String(_) | Value::Null | Value::Array(_) | Value::Object(_)) | None => {
            ABSENT.to_owned()
        }
    }
}

/// The items of a list of texts or numbers.
fn joined(item: &Value, pointer: &str) -> String {
    let items = item.pointer(pointer).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let items: Vec<String> = items.iter().map(|item| scalar(item, "")).collect();
    if items.is_empty() { ABSENT.to_owned() } else { items.join(", ") }
}

/// The port of the first endpoint for `protocol`: `10080` of `udp://:10080`.
fn port(origin: &Value, protocol: &str) -> String {
    let endpoint = scalar(origin, &format!("/endpoints/{protocol}/0"));
    endpoint.rsplit(':').next().unwrap_or(ABSENT).to_owned()
}

/// What an answer says about itself: shards that did not answer, streams that are not listed.
fn incomplete(answer: &Value, listed: usize) -> String {
    let mut text = String::new();
    let silent = answer.get("silent_shards").and_then(Value::as_array);
    if let Some(shards) = silent.filter(|shards| !shards.is_empty()) {
        let shards: Vec<String> = shards.iter().map(ToString::to_string).collect();
        text.push_str(&format!("no answer from shard {}\n", printable(&shards.join(", "))));
    }
    if let Some(total) = answer.get("total").and_then(Value::as_u64)
        && total > listed as u64
    {
        text.push_str(&format!("{listed} of {total}\n"));
    }
    text
}

/// A number in a unit that a person reads.
fn shown(item: &Value, pointer: &str, unit: fn(f64) -> String) -> String {
    item.pointer(pointer).and_then(Value::as_f64).map_or_else(|| ABSENT.to_owned(), unit)
}

/// Where the bitrate of the media stands: a publisher's comes from the client, a player's goes
/// there.
fn media_bitrate(session: &Value) -> &'static str {
    match session.pointer("/role").and_then(Value::as_str) {
        Some("play") => "/bitrate/client_out",
        Some(_) | None => "/bitrate/client_in",
    }
}

/// `1234 packets, 1.6 MB, 4.2 Mb/s`
fn flow(session: &Value, direction: &str) -> String {
    let at = |member: &str, unit| shown(session, &format!("/{member}/{direction}"), unit);
    let parts = [
        at("packets", |packets| format!("{packets} packets")),
        at("bytes", |bytes| scaled(bytes, &["B", "kB", "MB", "GB", "TB", "PB"])),
        at("bitrate", bitrate),
    ];
    let known: Vec<String> = parts.into_iter().filter(|part| part != ABSENT).collect();
    if known.is_empty() { ABSENT.to_owned() } else { known.join(", ") }
}

/// Without the virtual host that every stream is in unless told otherwise.
fn short_stream(stream: &str) -> String {
    stream.strip_prefix("__defaultVhost__/").unwrap_or(stream).to_owned()
}

/// `47s`, `12m05s`, `3h07m`, `9d21h`
fn age(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        86_400.. => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

fn bitrate(bits_per_second: f64) -> String {
    scaled(bits_per_second, &["b/s", "kb/s", "Mb/s", "Gb/s", "Tb/s"])
}

/// In thousands, with a digit behind the point where it says something.
fn scaled(number: f64, units: &[&str]) -> String {
    let mut scaled = number.max(0.0);
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    // From 999.95 on, one digit behind the point would make it 1000.0.
    while scaled >= 999.95 {
        let Some(next) = units.next() else { break };
        scaled /= 1_000.0;
        unit = next;
    }
    if number < 999.95 { format!("{scaled:.0} {unit}") } else { format!("{scaled:.1} {unit}") }
}

fn milliseconds(microseconds: f64) -> String {
    format!("{:.1} ms", microseconds / 1_000.0)
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// Streams are named by peers, and a terminal obeys control characters.
pub(super) fn printable(text: &str) -> String {
    let obeyed = |c: char| {
        let turns_text_round = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        c.is_control() || turns_text_round
    };
    text.chars().map(|c| if obeyed(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

const ABSENT: &str = "-";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn example() -> Value {
        json!({"sessions": [
            {
                "id": "0-12-7", "proto": "srt", "role": "publish",
                "stream": "__defaultVhost__/live/a-rather-long-name-of-a-stream-that-does-not-fit",
                "client": "203.0.113.7:50412", "origin": "origin-a", "shard": 0,
                "state": "established", "age_seconds": 725.4,
                "packets": {"client_in": 1234},
                "bytes": {"client_in": 1_600_000},
                "bitrate": {"client_in": 4_212_345, "client_out": 1},
                "srt": {"rtt_us": 21_400, "loss_client_to_relay": 0.018, "latency_ms": 120},
            },
            {
                "id": "1-3-1", "role": "play", "stream": "__defaultVhost__/live/b",
                "client": "[2001:db8::1234:5678:9abc:def0]:50412", "origin": "b",
                "state": "picking", "age_seconds": 3, "bitrate": {"client_out": 950},
            },
        ]})
    }

    #[test]
    fn a_list_fits_the_terminal_and_never_wraps() {
        for width in [60, 80, 100, 132] {
            let table = sessions(&example(), Some(width));
            assert_eq!(table.lines().count(), 3, "{table}");
            for line in table.lines() {
                assert!(line.chars().count() <= usize::from(width), "{width}: {table}");
            }
        }
    }

    #[test]
    fn eighty_columns_show_what_matters_most() {
        let table = sessions(&example(), Some(80));
        let heading = table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(heading, ["ID", "ROLE", "STREAM", "CLIENT", "ORIGIN", "AGE", "BITRATE"]);
        for text in
            ["0-12-7", "publish", "live/a-", "203.0.113.7:", "12m05s", "4.2 Mb/s", "950 b/s"]
        {
            assert!(table.contains(text), "{text} in\n{table}");
        }
    }

    #[test]
    fn numbers_stand_to_the_right() {
        let table = sessions(&example(), Some(132));
        let column = |text: &str| {
            let line = table.lines().find(|line| line.contains(text)).unwrap();
            let before = line.split(text).next().unwrap();
            before.chars().count() + text.chars().count()
        };
        assert_eq!(column("4.2 Mb/s"), column("950 b/s"));
        assert_eq!(column("12m05s"), column("3s"));
    }

    #[test]
    fn what_an_answer_lacks_is_left_out_or_a_dash() {
        let table = sessions(&example(), Some(132));
        let second = table.lines().nth(2).unwrap();
        assert!(second.split_whitespace().any(|word| word == ABSENT), "{table}");
        let table = sessions(&json!({"sessions": [{"id": "1"}, {"id": null}, 7]}), Some(132));
        assert_eq!(table, "ID\n1\n-\n-\n");
    }

    #[test]
    fn an_empty_list_says_so() {
        assert_eq!(sessions(&json!({"sessions": []}), None), "no sessions\n");
        assert_eq!(origins(&json!({}), None), "no origins\n");
    }

    #[test]
    fn a_name_cannot_control_the_terminal() {
        let answer = json!({"streams": [{"stream": "a/\u{1b}[2J\u{202e}b\n", "players": 1}]});
        let table = streams(&answer, Some(80));
        assert!(!table.contains(['\u{1b}', '\u{202e}']), "{table:?}");
        assert_eq!(table.lines().count(), 2);
    }

    #[test]
    fn origins_are_listed_with_what_is_known() {
        let answer = json!({"origins": [
            {
                "id": 0, "name": "a", "ip": "10.0.0.5", "state": "up", "sessions": 12,
                "endpoints": {"srt": ["udp://:10080"], "rtc": ["8000"], "api": []},
                "static": false, "last_seen_seconds": 4.2, "server": "vid-494121g",
            },
            {
                "id": 1, "name": "b", "ip": "::1", "state": "down", "sessions": 0, "static": true,
                "reason": "heartbeat stopped",
            },
        ]});
        let rows = |width| -> Vec<Vec<String>> {
            let table = origins(&answer, Some(width));
            let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
            table.lines().map(words).collect()
        };
        let at_80 = [
            "NAME IP SRT STATE SESSIONS HEARTBEAT REASON",
            "a 10.0.0.5 10080 up 12 4s -",
            "b ::1 - down 0 - heartbeat stopped",
        ];
        assert_eq!(rows(80).iter().map(|row| row.join(" ")).collect::<Vec<_>>(), at_80);
        assert_eq!(rows(132)[1].join(" "), "a 10.0.0.5 10080 8000 up 12 4s vid-494121g -");
    }

    #[test]
    fn an_answer_that_is_incomplete_says_so() {
        let silent = json!({"sessions": [], "silent_shards": [0, 2]});
        assert_eq!(sessions(&silent, None), "no sessions\nno answer from shard 0, 2\n");
        let many = json!({"streams": [{"stream": "a/b"}], "total": 5});
        assert!(streams(&many, Some(80)).ends_with("\n1 of 5\n"));
        let all = json!({"streams": [{"stream": "a/b"}], "total": 1});
        assert_eq!(streams(&all, Some(80)), "STREAM\na/b\n");
    }

    #[test]
    fn one_session_is_shown_line_by_line() {
        let answer = example();
        let text = session(answer.pointer("/sessions/0").unwrap());
        for line in [
            "Age                    12m05s",
            "From the client        1234 packets, 1.6 MB, 4.2 Mb/s",
            "RTT end to end         21.4 ms",
            "Loss before the relay  1.80 %",
            "Latency                120 ms",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
        }
        assert!(!text.contains("RTT to the origin"));
    }

    #[test]
    fn a_webrtc_session_shows_what_is_in_clear() {
        let answer = json!({
            "id": "w-17", "proto": "webrtc", "webrtc": {
                "ufrag_pair": "o:c", "addresses": ["192.0.2.1:5", "[2001:db8::1]:6"], "ssrcs": [7],
            },
        });
        let text = session(&answer);
        for line in [
            "ID                     w-17",
            "ICE user names         o:c",
            "Proven addresses       192.0.2.1:5, [2001:db8::1]:6",
            "SSRCs                  7",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
        }
        let expected = session(&json!({"id": "w-1", "webrtc": {"addresses": [], "ssrcs": []}}));
        assert_eq!(expected, "ID                     w-1\n");
    }

    #[test]
    fn ages_are_short() {
        for (seconds, text) in [
            (0.9, "0s"),
            (59.0, "59s"),
            (60.0, "1m00s"),
            (3_599.0, "59m59s"),
            (11_220.0, "3h07m"),
            (853_200.0, "9d21h"),
            (-1.0, "0s"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn rates_are_in_thousands() {
        for (number, text) in [
            (0.0, "0 b/s"),
            (999.0, "999 b/s"),
            (999.96, "1.0 kb/s"),
            (1_000.0, "1.0 kb/s"),
            (999_949.0, "999.9 kb/s"),
            (999_960.0, "1.0 Mb/s"),
            (4_212_345.0, "4.2 Mb/s"),
            (9e18, "9000000.0 Tb/s"),
        ] {
            assert_eq!(bitrate(number), text);
        }
    }
}
