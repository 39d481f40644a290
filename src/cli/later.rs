//! Flags and commands that belong to Ringway and not to this version.
//!
//! Whoever types one has read about it somewhere, so the refusal says what is missing instead of
//! guessing at a spelling mistake.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Says what is missing where the user typed something of another version; any other error comes
/// back as it is.
pub(super) fn explain(error: clap::Error, command: &mut clap::Command) -> clap::Error {
    let kind = error.kind();
    let typed = |context| match error.get(context) {
        Some(ContextValue::String(typed)) => typed.as_str(),
        Some(_) | None => "",
    };
    let message = if kind == ErrorKind::UnknownArgument {
        let flag = typed(ContextKind::InvalidArg);
        let found = FLAGS.iter().find(|(beginning, _)| flag.starts_with(beginning));
        found.map(|(_, subject)| {
            format!("{flag} is about {subject}, which is not in this version; leave it out")
        })
    } else if kind == ErrorKind::InvalidSubcommand {
        let name = typed(ContextKind::InvalidSubcommand);
        COMMANDS.contains(&name).then(|| {
            format!("`ringway {name}` is not in this version; `ringway --help` lists what is")
        })
    } else {
        None
    };
    match message {
        Some(message) => command.error(kind, message),
        None => error,
    }
}

/// How a flag begins, and its subject.
const FLAGS: &[(&str, &str)] = &[("--redis-", "Redis")];

const COMMANDS: &[&str] = &["doctor", "explain", "reload", "upgrade", "log", "capture"];
