//! The `.env` file in the working directory, in the syntax that the Go proxy reads.
//!
//! Values are literal: a `$` is a dollar. Expanding variables would read the environment of the
//! process a second time and spoil secrets that hold a dollar.

use super::sources::{ConfigError, Variables};

/// Reads lines of `KEY=VALUE`.
///
/// A line may begin with `export`. Lines that begin with `#` and what follows ` #` are comments. In
/// single quotes everything stands for itself; in double quotes `\n`, `\r`, `\"` and `\\` are
/// escapes. Of a key that occurs twice the last value counts.
///
/// # Errors
/// Names the first line that is none of these.
pub fn parse(text: &str) -> Result<Variables, ConfigError> {
    let mut variables = Variables::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let bad = |problem| ConfigError::Dotenv { line: index + 1, problem };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, rest)) = line.split_once('=') else {
            return Err(bad("there is no = in it"));
        };
        let key = key.trim();
        let key =
            key.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(key);
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(bad("what stands before the = is not a name"));
        }
        variables.insert(key.to_owned(), value(rest.trim()).map_err(bad)?);
    }
    Ok(variables)
}

fn value(text: &str) -> Result<String, &'static str> {
    let quoted = match text.chars().next() {
        Some('\'') => single_quoted(text),
        Some('"') => double_quoted(text),
        Some(_) | None => return Ok(before_comment(text).to_owned()),
    };
    let (value, rest) = quoted.ok_or("a quotation mark is not closed")?;
    if rest.trim().is_empty() || rest.trim_start().starts_with('#') {
        Ok(value)
    } else {
        Err("something stands behind the closing quotation mark")
    }
}

/// What is between the quotation marks, and what follows them.
fn single_quoted(text: &str) -> Option<(String, &str)> {
    let (value, rest) = text.strip_prefix('\'')?.split_once('\'')?;
    Some((value.to_owned(), rest))
}

fn double_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.strip_prefix('"')?.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                plain @ ('"' | '\\') => value.push(plain),
                other => value.extend(['\\', other]),
            },
            plain => value.push(plain),
        }
    }
}

fn before_comment(text: &str) -> &str {
    if text.starts_with('#') {
        return "";
    }
    let comment = text.find(" #").into_iter().chain(text.find("\t#")).min();
    comment.and_then(|at| text.get(..at)).unwrap_or(text).trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(text: &str) -> String {
        parse(&format!("KEY={text}\n")).unwrap()["KEY"].clone()
    }

    #[test]
    fn unquoted_values_are_literal_up_to_a_comment() {
        for (typed, read) in [
            ("20080", "20080"),
            (" 20080 ", "20080"),
            (":20080 # all interfaces", ":20080"),
            ("a#b", "a#b"),
            ("two words", "two words"),
            ("pa$$word$HOME", "pa$$word$HOME"),
            (r"back\slash", r"back\slash"),
            ("name=a,ip=10.0.0.5", "name=a,ip=10.0.0.5"),
            ("", ""),
            ("# nothing", ""),
        ] {
            assert_eq!(value_of(typed), read, "{typed}");
        }
    }

    #[test]
    fn single_quotes_keep_everything() {
        assert_eq!(value_of(r"'a # b\n$c' # comment"), r"a # b\n$c");
    }

    #[test]
    fn double_quotes_know_four_escapes() {
        assert_eq!(value_of(r#""a\n\r\"\\ # b" # comment"#), "a\n\r\"\\ # b");
    }

    #[test]
    fn an_unknown_escape_stays_as_it_is() {
        assert_eq!(value_of(r#""\d$""#), r"\d$");
    }

    #[test]
    fn export_blank_lines_comments_and_carriage_returns_are_skipped() {
        let variables =
            parse("\u{feff}# head\r\n\r\nexport A = 1\r\n  B=2\r\nexport=3\r\n").unwrap();
        let expected = [("A", "1"), ("B", "2"), ("export", "3")];
        assert_eq!(
            variables,
            expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
        );
    }

    #[test]
    fn the_last_value_of_a_key_counts() {
        assert_eq!(parse("A=1\nA=2").unwrap()["A"], "2");
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_by_its_number() {
        for (text, message) in [
            ("A=1\nnonsense", ".env, line 2: there is no = in it; write KEY=VALUE"),
            ("=1", ".env, line 1: what stands before the = is not a name; write KEY=VALUE"),
            ("A='1", ".env, line 1: a quotation mark is not closed; write KEY=VALUE"),
            ("A=\"1\\\"", ".env, line 1: a quotation mark is not closed; write KEY=VALUE"),
            (
                "A='1' 2",
                ".env, line 1: something stands behind the closing quotation mark; write KEY=VALUE",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }
}
