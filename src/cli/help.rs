//! `--help`: the flags of `serve` in groups of at most a screen, each with its default and its
//! environment twin.

use crate::config::settings::{Group, SETTINGS, Setting};
use crate::config::sources::FILE_VARIABLE;

/// For `ringway --help`.
pub(super) fn root() -> String {
    format!("{ABOUT}\n\n{COMMANDS}\n\n{}  -V, --version\n", serve_flags())
}

/// For `ringway serve --help`.
pub(super) fn serve() -> String {
    format!("Runs the relay.\n\nUsage: ringway serve [OPTIONS]\n\n{}", serve_flags())
}

fn serve_flags() -> String {
    let order = wrap(ORDER, WIDTH, 0);
    let groups: Vec<String> = Group::ALL.into_iter().map(group).collect();
    format!("{order}\n\n{}", groups.join("\n"))
}

fn group(group: Group) -> String {
    let mut text = format!("{}:\n", group.title());
    if let Some(note) = group.note() {
        text.push_str(&format!("  {}\n", wrap(note, WIDTH, 2)));
    }
    for setting in SETTINGS.iter().filter(|setting| setting.group == group) {
        text.push_str(&flag(setting));
    }
    if group == Group::Admin {
        text.push_str(&entry("--config FILE", FILE_VARIABLE, "none", FILE_HELP));
        text.push_str("  -h, --help\n");
    }
    text
}

fn flag(setting: &Setting) -> String {
    let flag = format!("--{} {}", setting.name, setting.value);
    entry(&flag, setting.variable, &setting.default(), setting.help)
}

fn entry(flag: &str, variable: &str, default: &str, help: &str) -> String {
    let facts = format!("[env: {variable}] [default: {default}]");
    let head = format!("  {flag}  {facts}");
    let head = if head.chars().count() <= WIDTH {
        head
    } else {
        format!("  {flag}\n      {}", wrap(&facts, WIDTH, 6))
    };
    format!("{head}\n      {}\n", wrap(help, WIDTH, 6))
}

/// Breaks `text` between words. Lines after the first begin with `indent` blanks, and so will the
/// first.
fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut wrapped = String::new();
    let mut column = indent;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > indent && column + 1 + length > width {
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > indent {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

const WIDTH: usize = 80;

const ABOUT: &str = "Ringway, a relay for live media over UDP, between clients and origin servers.";

const COMMANDS: &str = "\
Usage: ringway [serve] [OPTIONS]
       ringway COMMAND

Commands:
  serve         Runs the relay; what `ringway` alone does, too
  config print  Prints every value and where it was set, as TOML
  config check  Says whether the configuration can be used
  sessions      Lists the sessions of a running relay
  session ID    Shows one session
  origins       Lists the origins that a running relay knows
  streams       Lists the streams and the origins they are on
  drain         Refuses new sessions and waits until live ones have ended
  undrain       Lets new sessions in again
  help COMMAND  Shows the options of a command";

const ORDER: &str = "A value may be set in the file, in .env in the working directory, in the \
                     environment or by a flag; the later of these wins. Keys of the file are the \
                     names of the flags.";

const FILE_HELP: &str = "The configuration file (TOML).";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_stands_there_with_its_variable_and_default() {
        let help = root();
        // The wrapped text in one line, so that a long default is found, too.
        let flat = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for setting in SETTINGS {
            let expected = format!(
                "--{} {} [env: {}] [default: {}]",
                setting.name,
                setting.value,
                setting.variable,
                setting.default()
            );
            assert!(flat.contains(&expected), "{expected}");
        }
        assert!(flat.contains("--config FILE [env: RINGWAY_CONFIG]"));
    }

    #[test]
    fn the_documented_defaults_are_shown() {
        let help = serve();
        for line in [
            "  --srt-listen ENDPOINT  [env: PROXY_SRT_SERVER] [default: 20080]\n",
            "  --webrtc-listen ENDPOINT  [env: PROXY_WEBRTC_SERVER] [default: 18000]\n",
            "  --tls-cert FILE  [env: RINGWAY_TLS_CERT] [default: none: plain HTTP]\n",
            "  --system-listen ENDPOINT  [env: PROXY_SYSTEM_API] [default: 127.0.0.1:12025]\n",
            "  --origin-ttl DURATION  [env: PROXY_ORIGIN_SERVER_TTL] [default: 300s]\n",
            "  --engine ENGINE  [env: RINGWAY_ENGINE] [default: auto]\n",
            "  --srt-idle-timeout DURATION  [env: RINGWAY_SRT_IDLE_TIMEOUT] [default: 15s]\n",
        ] {
            assert!(help.contains(line), "{line}");
        }
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        for line in root().lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn every_group_fits_a_screen() {
        for of in Group::ALL {
            let lines = group(of).lines().count();
            assert!(lines <= 24, "{} has {lines} lines", of.title());
        }
    }

    #[test]
    fn what_this_version_does_not_do_is_not_offered() {
        assert!(!root().to_ascii_lowercase().contains("redis"));
    }

    #[test]
    fn the_memory_of_a_shard_is_stated() {
        assert!(root().contains("512 x 64 KiB = 32 MiB with GRO, 4096 x"));
    }

    #[test]
    fn words_are_wrapped_and_never_broken() {
        assert_eq!(wrap("aa bb cc", 5, 0), "aa bb\ncc");
        assert_eq!(wrap("aa bb cc", 7, 2), "aa bb\n  cc");
        assert_eq!(wrap("a longword b", 5, 0), "a\nlongword\nb");
    }
}
