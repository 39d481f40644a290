//! Who may import whom, and what the pure modules must not do.
//!
//! Rules, over `src/**/*.rs`:
//! - A module imports only what [`MAY_IMPORT`] lists for it. Test modules (`#[cfg(test)]`) are
//!   exempt: a test may build what it needs from anywhere.
//! - `protocol`, `session` and `shard` neither read a clock nor hold `async` code, their test
//!   modules excepted.
//! - `unsafe` stands below `src/engine` only, in tests, too.
//! - A file begins with `//!` and has at most 800 lines without its test modules.
//!
//! The files are read as tokens, so comments and strings do not count, and paths are followed
//! through `crate`, `super` and nested braces. Names that a macro puts together are not seen.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may import whom. A path allows what is below it.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("session", &["protocol"]),
    ("shard", &["session", "protocol"]),
    ("mailbox", &[]),
    ("engine", &["shard", "config", "mailbox"]),
    // Counters, and the names of what they count.
    (
        "telemetry",
        &[
            "shard::counters",
            "shard::Counters",
            "shard::IoCounters",
            "shard::DropReason",
            "shard::verdict::DropReason",
            "shard::command::Flow",
            "shard::command::Protocol",
            "protocol::srt::Rejection",
        ],
    ),
    // Commands, events and counters. No verdict, no datagram, no shard.
    (
        "control",
        &[
            "shard::command",
            "shard::Command",
            "shard::EndReason",
            "shard::Event",
            "shard::OriginId",
            "shard::PickRequest",
            "shard::Role",
            "shard::SessionKey",
            "shard::counters",
            "shard::Counters",
            "shard::IoCounters",
            "protocol",
            "telemetry",
            "config",
            "mailbox",
        ],
    ),
    ("config", &["protocol", "session", "shard"]),
    ("cli", &["config"]),
    ("doctor", &["config"]),
    (
        "relay",
        &["protocol", "session", "shard", "mailbox", "engine", "telemetry", "control", "config"],
    ),
    ("main", &["cli", "config", "relay", "doctor", "telemetry"]),
    ("lib", &[]),
];

/// Functions of (state, now, bytes): they have no clock and never wait.
const PURE: [&str; 3] = ["protocol", "session", "shard"];

const LINES_MAX: usize = 800;

#[test]
fn modules_import_only_what_the_table_allows() {
    assert_none(over_the_tree(forbidden_imports));
}

#[test]
fn the_pure_modules_have_no_clock_and_never_wait() {
    assert_none(over_the_tree(impurities));
}

#[test]
fn unsafe_code_stands_below_the_engine_only() {
    assert_none(over_the_tree(unsafe_outside_the_engine));
}

#[test]
fn every_file_says_what_it_is_for() {
    assert_none(over_the_tree(missing_introduction));
}

#[test]
fn every_file_fits_eight_hundred_lines_without_its_tests() {
    assert_none(over_the_tree(too_long));
}

#[test]
fn every_module_is_in_the_table() {
    let listed: BTreeSet<&str> = MAY_IMPORT.iter().map(|(module, _)| *module).collect();
    let found: BTreeSet<String> =
        tree().into_iter().map(|source| source.module().to_owned()).collect();
    let unlisted: Vec<&String> =
        found.iter().filter(|module| !listed.contains(module.as_str())).collect();
    assert!(unlisted.is_empty(), "add to MAY_IMPORT: {unlisted:?}");
    for module in PURE {
        assert!(found.contains(module), "{module} is not in the tree");
    }
}

#[test]
fn a_forbidden_import_is_found_however_it_is_written() {
    for text in [
        "use crate::session::SessionKey;",
        "use crate::{config::Config, session::SessionKey};",
        "use crate::{config::{Config, Listen}, protocol::{self, srt}, session as s};",
        "use super::super::session::SessionKey;",
        "fn f() -> crate::session::SessionKey { todo!() }",
        "mod inner { use super::super::super::session; }",
        "use crate::shard::Shard;",
        "use crate::shard::{Command, Verdict};",
        "use crate::shard::*;",
        "use crate::shard;",
        "use crate::engine::start;",
    ] {
        let source = Source::read("control/http.rs", text);
        assert_eq!(forbidden_imports(&source).len(), 1, "{text}");
    }
}

#[test]
fn an_allowed_import_is_not_found() {
    for text in [
        "use crate::shard::{Command, command::Traffic, counters::Counters};",
        "use super::directory::Directory; use crate::control::directory::Origin;",
        "use crate::protocol::srt::Rejection; pub(crate) fn f() {}",
        "// use crate::session::SessionKey;",
        "/* use crate::session; /* use crate::engine; */ */",
        "const A: &str = \"crate::session::SessionKey\"; const B: char = '\"';",
        "const A: &str = r#\"crate::session::\"SessionKey\"#; fn f<'a>(a: &'a str) {}",
        "#[cfg(test)] mod tests { use crate::session::SessionKey; fn f() { {} } }",
        "#[cfg(test)] #[allow(unused)] use crate::{session::SessionKey, engine};",
    ] {
        let source = Source::read("control/http.rs", text);
        assert_eq!(forbidden_imports(&source), [""; 0], "{text}");
    }
}

#[test]
fn the_binary_imports_through_the_library() {
    let source = Source::read("main.rs", "use ringway::{cli, engine};");
    assert_eq!(forbidden_imports(&source).len(), 1);
}

#[test]
fn code_behind_a_test_module_counts_again() {
    let text = "#[cfg(test)] mod tests { fn f() {} } use crate::session::SessionKey;";
    assert_eq!(forbidden_imports(&Source::read("control/mod.rs", text)).len(), 1);
}

#[test]
fn impurities_are_found() {
    for text in [
        "fn f() { let now = std::time::Instant::now(); }",
        "use std::time::Instant; fn f() { Instant :: now (); }",
        "fn f() { SystemTime::now(); }",
        "async fn f() {}",
        "fn f() { async move {} }",
    ] {
        assert_eq!(impurities(&Source::read("shard/mod.rs", text)).len(), 1, "{text}");
        assert_eq!(impurities(&Source::read("engine/mod.rs", text)), [""; 0], "{text}");
    }
    let test = "#[cfg(test)] mod tests { fn now() { Instant::now(); } }";
    assert_eq!(impurities(&Source::read("shard/mod.rs", test)), [""; 0]);
}

#[test]
fn unsafe_code_is_found_in_tests_too() {
    let text = "#[cfg(test)] mod tests { fn f() { unsafe { g() } } }";
    assert_eq!(unsafe_outside_the_engine(&Source::read("shard/mod.rs", text)).len(), 1);
    assert_eq!(unsafe_outside_the_engine(&Source::read("engine/uring/mod.rs", text)), [""; 0]);
    let word = "#![deny(unsafe_code)] // unsafe";
    assert_eq!(unsafe_outside_the_engine(&Source::read("lib.rs", word)), [""; 0]);
}

#[test]
fn a_file_without_an_introduction_is_found() {
    assert_eq!(missing_introduction(&Source::read("a.rs", "// no\n//! late")).len(), 1);
    assert_eq!(missing_introduction(&Source::read("a.rs", "//! What it is for.")), [""; 0]);
}

#[test]
fn lines_of_test_modules_do_not_make_a_file_too_long() {
    let lines = |count: usize| "fn f() {}\n".repeat(count);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines(500));
    let source = |code| Source::read("a.rs", &format!("{}{tests}", lines(code)));
    assert_eq!(too_long(&source(800)), [""; 0]);
    assert_eq!(too_long(&source(801)).len(), 1);
}

/// One file.
struct Source {
    /// Below `src`.
    path: PathBuf,
    text: String,
    tokens: Vec<Token>,
    /// The tokens outside of what is compiled for tests only.
    code: Vec<Token>,
    /// Lines of test modules.
    test_lines: usize,
    /// `#[cfg(test)] mod name;`
    test_files: Vec<String>,
}

impl Source {
    fn read(path: &str, text: &str) -> Self {
        let tokens = tokens(text);
        let mut source = Self {
            path: path.into(),
            text: text.to_owned(),
            code: Vec::new(),
            test_lines: 0,
            test_files: Vec::new(),
            tokens,
        };
        source.split_tests();
        source
    }

    /// `src/shard/verdict.rs` is `["shard", "verdict"]`, and `src/shard/mod.rs` is `["shard"]`.
    fn module_path(&self) -> Vec<String> {
        let path = self.path.with_extension("");
        let mut names: Vec<String> =
            path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        if names.last().is_some_and(|last| last == "mod") {
            names.pop();
        }
        names
    }

    /// The module of the table that the file belongs to.
    fn module(&self) -> &str {
        let first = self.path.iter().next().and_then(|name| name.to_str()).unwrap_or_default();
        first.trim_end_matches(".rs")
    }

    fn is_root(&self) -> bool {
        ["lib", "main"].contains(&self.module())
    }

    fn at(&self, line: usize, problem: &str) -> String {
        format!("src/{}:{line}: {problem}", self.path.display())
    }

    /// Moves what is not compiled for tests only into `code`.
    fn split_tests(&mut self) {
        let mut index = 0;
        while let Some(token) = self.tokens.get(index) {
            if !starts_with(&self.tokens, index, &["#", "[", "cfg", "(", "test", ")", "]"]) {
                self.code.push(token.clone());
                index += 1;
                continue;
            }
            let item = index + 7;
            let end = end_of_item(&self.tokens, item);
            if starts_with(&self.tokens, item, &["mod"])
                && starts_with(&self.tokens, item + 2, &[";"])
            {
                self.test_files.push(word(&self.tokens, item + 1).to_owned());
            }
            let last = self.tokens.get(end.saturating_sub(1)).unwrap_or(token);
            self.test_lines += last.line - token.line + 1;
            index = end;
        }
    }
}

/// Every file below `src` that is not a test module as a whole.
fn tree() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("the tree can be listed") {
            let path = entry.expect("the tree can be listed").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source is UTF-8");
                let below = path.strip_prefix(&root).expect("it was found there");
                sources.push(Source::read(&below.to_string_lossy(), &text));
            }
        }
    }
    let tests: Vec<Vec<String>> = sources
        .iter()
        .flat_map(|source| {
            let parent = if source.is_root() { Vec::new() } else { source.module_path() };
            source.test_files.iter().map(move |name| [parent.clone(), vec![name.clone()]].concat())
        })
        .collect();
    sources.retain(|source| {
        let path = source.module_path();
        !tests.iter().any(|test| path.starts_with(test))
    });
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn over_the_tree(check: fn(&Source) -> Vec<String>) -> Vec<String> {
    tree().iter().flat_map(check).collect()
}

fn assert_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

fn forbidden_imports(source: &Source) -> Vec<String> {
    let own = source.module();
    let allowed =
        MAY_IMPORT.iter().find(|(module, _)| *module == own).map_or(&[][..], |(_, may)| *may);
    let is_allowed = |path: &str| {
        allowed.iter().any(|may| {
            path.strip_prefix(may).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
    };
    imports(source)
        .into_iter()
        .filter(|(_, path)| path.first().is_some_and(|first| first != own))
        .map(|(line, path)| (line, path.join("::")))
        .filter(|(_, path)| !is_allowed(path))
        .map(|(line, path)| source.at(line, &format!("{own} must not import {path}")))
        .collect()
}

fn impurities(source: &Source) -> Vec<String> {
    if !PURE.contains(&source.module()) {
        return Vec::new();
    }
    let forbidden: [&[&str]; 3] =
        [&["Instant", ":", ":", "now"], &["SystemTime", ":", ":", "now"], &["async"]];
    let mut problems = Vec::new();
    for (index, token) in source.code.iter().enumerate() {
        for words in forbidden {
            if starts_with(&source.code, index, words) {
                problems
                    .push(source.at(token.line, &format!("{} in a pure module", words.concat())));
            }
        }
    }
    problems
}

fn unsafe_outside_the_engine(source: &Source) -> Vec<String> {
    let is_engine = source.module() == "engine";
    let found = source.tokens.iter().filter(|token| token.text == "unsafe" && !is_engine);
    found.map(|token| source.at(token.line, "unsafe code outside of the engine")).collect()
}

fn missing_introduction(source: &Source) -> Vec<String> {
    let is_missing = !source.text.starts_with("//!");
    is_missing.then(|| source.at(1, "does not begin with //!")).into_iter().collect()
}

fn too_long(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count() - source.test_lines;
    let is_too_long = lines > LINES_MAX;
    is_too_long
        .then(|| source.at(lines, &format!("{lines} lines without tests")))
        .into_iter()
        .collect()
}

/// Every path of this crate that the code names, from the root of the crate, and the line it stands
/// on.
fn imports(source: &Source) -> Vec<(usize, Vec<String>)> {
    let code = &source.code;
    let file = if source.is_root() { Vec::new() } else { source.module_path() };
    // Inline modules around the current token, and the depth of braces that each was opened at.
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut found = Vec::new();
    for (index, token) in code.iter().enumerate() {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inline.retain(|(_, opened)| *opened <= depth);
            }
            "mod" if starts_with(code, index + 2, &["{"]) => {
                inline.push((word(code, index + 1).to_owned(), depth + 1));
            }
            _ => {}
        }
        let is_begin = index == 0 || word(code, index - 1) != ":";
        if !is_begin || !starts_with(code, index + 1, &[":", ":"]) {
            continue;
        }
        let mut paths = Vec::new();
        match token.text.as_str() {
            "crate" => _ = collect(code, index + 3, &[], &mut paths),
            "ringway" if source.module() == "main" => _ = collect(code, index + 3, &[], &mut paths),
            "super" => {
                let mut base = file.clone();
                base.extend(inline.iter().map(|(name, _)| name.clone()));
                base.pop();
                let mut next = index + 3;
                while starts_with(code, next, &["super", ":", ":"]) {
                    base.pop();
                    next += 3;
                }
                collect(code, next, &base, &mut paths);
            }
            _ => {}
        }
        found.extend(paths.into_iter().map(|path| (token.line, path)));
    }
    found
}

/// Adds the paths of the tree that begins at `index` to `paths`, and gives the index behind it.
fn collect(code: &[Token], index: usize, prefix: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let Some(token) = code.get(index) else {
        return index;
    };
    if token.text == "{" {
        let mut next = index + 1;
        while code.get(next).is_some_and(|token| token.text != "}") {
            next = match word(code, next) {
                "," => next + 1,
                // `a as b`
                "as" => next + 2,
                _ => collect(code, next, prefix, paths).max(next + 1),
            };
        }
        return next + 1;
    }
    let is_name = token.text.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let mut path = prefix.to_vec();
    if token.text == "self" || !(is_name || token.text == "*") {
        paths.push(path);
        return index + 1;
    }
    path.push(token.text.clone());
    if starts_with(code, index + 1, &[":", ":"]) {
        return collect(code, index + 3, &path, paths);
    }
    paths.push(path);
    index + 1
}

/// The index behind the item, field or variant that begins at `index`, attributes included.
fn end_of_item(tokens: &[Token], index: usize) -> usize {
    let keywords = [
        "pub",
        "mod",
        "use",
        "fn",
        "impl",
        "struct",
        "enum",
        "trait",
        "const",
        "static",
        "type",
        "unsafe",
        "async",
        "extern",
        "let",
        "macro_rules",
    ];
    let mut depth = 0_usize;
    let mut is_item = false;
    for (offset, token) in tokens.iter().enumerate().skip(index) {
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" if depth == 0 => return offset,
            "}" if depth == 1 => return offset + 1,
            "}" | ")" | "]" => depth -= 1,
            ";" if depth == 0 => return offset + 1,
            "," if depth == 0 && !is_item => return offset + 1,
            word if depth == 0 && keywords.contains(&word) => is_item = true,
            _ => {}
        }
    }
    tokens.len()
}

/// A word or a single character of punctuation.
#[derive(Clone, Debug)]
struct Token {
    text: String,
    line: usize,
}

/// The token at `index`; empty behind the end.
fn word(tokens: &[Token], index: usize) -> &str {
    tokens.get(index).map_or("", |token| token.text.as_str())
}

fn starts_with(tokens: &[Token], index: usize, words: &[&str]) -> bool {
    let found = tokens.iter().skip(index).take(words.len());
    found.map(|token| token.text.as_str()).eq(words.iter().copied())
}

/// The words and the punctuation of `text`, without comments, strings, characters and lifetimes.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(c) = rest.chars().next() {
        let is_word = c.is_alphanumeric() || c == '_';
        let length = if is_word {
            let word =
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            string_after_prefix(&rest[..word], &rest[word..]).map_or(word, |string| word + string)
        } else {
            skipped(rest).unwrap_or(c.len_utf8())
        };
        let taken = &rest[..length];
        let is_token = if is_word {
            !taken.contains('"')
        } else {
            length == c.len_utf8() && !c.is_whitespace()
        };
        if is_token {
            tokens.push(Token { text: taken.to_owned(), line });
        }
        line += taken.matches('\n').count();
        rest = &rest[length..];
    }
    tokens
}

/// The length of the string literal in `rest`, if `word` is the prefix of one: `r"..."`,
/// `br#"..."#`, `c"..."`.
fn string_after_prefix(word: &str, rest: &str) -> Option<usize> {
    if !["r", "b", "c", "br", "cr"].contains(&word) {
        return None;
    }
    if !word.ends_with('r') {
        return rest.starts_with('"').then(|| quoted(rest));
    }
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let body = rest[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(hashes + 1 + body.find(&end).map_or(body.len(), |at| at + end.len()))
}

/// The length of the comment, string, character or lifetime that `rest` begins with.
fn skipped(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    if rest.starts_with('"') {
        return Some(quoted(rest));
    }
    let body = rest.strip_prefix('\'')?;
    if body.starts_with('\\') {
        let end = body[2..].find('\'').map_or(body.len(), |at| at + 3);
        return Some(1 + end);
    }
    let first = body.chars().next()?.len_utf8();
    if body[first..].starts_with('\'') {
        return Some(first + 2);
    }
    let name = body.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(body.len());
    Some(1 + name)
}

/// The length of the string at the front, quotation marks included.
fn quoted(rest: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '"' if !is_escaped => return at + 1,
            '\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    rest.len()
}

/// The length of the comment at the front; Rust's may be nested.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}
