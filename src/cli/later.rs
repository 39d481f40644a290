//! Flags and commands that belong to Ringway and not to this version.
//!
//! Whoever types one has read about it somewhere, so the refusal says what is missing instead of
//! guessing at a spelling mistake.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Says what is missing where the user typed something of another version; any other error comes
/// back as it is.
pub(super) fn explain(error: clap::Error, command: &mut clap::Command) -> clap::Error {
    let (context, names) = if error.kind() == ErrorKind::UnknownArgument {
        (ContextKind::InvalidArg, FLAGS)
    } else if error.kind() == ErrorKind::InvalidSubcommand {
        (ContextKind::InvalidSubcommand, COMMANDS)
    } else {
        return error;
    };
    let Some(ContextValue::String(typed)) = error.get(context) else {
        return error;
    };
    let found = names
        .iter()
        .find(|(name, _)| *name == typed || name.ends_with('-') && typed.starts_with(name));
    match found {
        Some((_, missing)) => {
            let message = format!("{typed}: {missing}, which is not in this version; leave it out");
            command.error(error.kind(), message)
        }
        None => error,
    }
}

/// A name that ends in a hyphen stands for all that begin with it.
const FLAGS: &[(&str, &str)] = &[
    ("--webrtc-", "this is about WebRTC"),
    ("--public-address", "this is about WebRTC"),
    ("--http-per-source", "this is about WebRTC"),
    ("--trusted-proxies", "this is about WebRTC"),
    ("--redis-", "this is about Redis"),
    ("--tls-", "this is about TLS"),
    ("--batch-wait", "this asks to gather datagrams"),
];

const COMMANDS: &[(&str, &str)] = &[
    ("doctor", "this examines the host"),
    ("explain", "this tells past decisions"),
    ("drain", "this drains a relay that goes on running"),
    ("undrain", "this drains a relay that goes on running"),
    ("reload", "this reads the configuration again"),
    ("upgrade", "this replaces a relay without ending its sessions"),
    ("log", "this changes the log of a running relay"),
    ("capture", "this records packets"),
];
