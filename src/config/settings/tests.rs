//! The table of settings holds together.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn read(name: &str, text: &str) -> Result<Config, BadValue> {
    let mut config = Config::default();
    by_name(name).unwrap().read(&mut config, text).map(|()| config)
}

#[test]
fn names_and_variables_are_unique() {
    let names: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
    let variables: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.variable).collect();
    assert_eq!((names.len(), variables.len()), (SETTINGS.len(), SETTINGS.len()));
}

#[test]
fn every_setting_has_all_its_texts() {
    for setting in SETTINGS {
        let texts = [setting.name, setting.variable, setting.value, setting.help];
        assert!(texts.iter().all(|text| !text.is_empty()), "{}", setting.name);
        assert!(!setting.default().is_empty(), "{}", setting.name);
    }
}

#[test]
fn every_default_that_is_a_value_can_be_typed() {
    for setting in SETTINGS {
        if let Some(text) = setting.show(&Config::default()) {
            let config = read(setting.name, &text).unwrap();
            assert_eq!(setting.show(&config), Some(text));
        }
    }
}

#[test]
fn a_value_that_cannot_be_used_changes_nothing() {
    let mut config = Config::default();
    for setting in SETTINGS {
        // No value holds a control character.
        assert!(setting.read(&mut config, "\u{1}").is_err(), "{}", setting.name);
        assert_eq!(setting.show(&config), setting.show(&Config::default()));
    }
}

#[test]
fn every_setting_reads_into_the_field_that_it_shows() {
    for (name, text) in [
        ("srt-listen", "1"),
        ("webrtc-listen", "9001"),
        ("public-address", "198.51.100.7,[2001:db8::7]:443"),
        ("webrtc-direct", "on"),
        ("tls-cert", "/etc/ringway/cert.pem"),
        ("tls-key", "/etc/ringway/key.pem"),
        ("trusted-proxies", "10.0.0.0/8"),
        ("http-listen", "2"),
        ("system-listen", "3"),
        ("origin", "name=a,ip=10.0.0.5,srt=10080"),
        ("origin-ttl", "31s"),
        ("origin-check", "7s"),
        ("balancer", "memory"),
        ("allow-origins", "10.0.0.0/8"),
        ("register-token", "***"),
        ("srt-default-stream", "a/b"),
        ("srt-key-length", "24"),
        ("vhosts", "a.example"),
        ("engine", "uring"),
        ("cpus", "0-1"),
        ("shards", "4"),
        ("control-cpu", "5"),
        ("steer", "cpu"),
        ("gso", "on"),
        ("gro", "off"),
        ("batch-wait", "250us"),
        ("client-sockets", "0"),
        ("sessions-max", "6"),
        ("pending-max", "7"),
        ("pending-per-source", "8"),
        ("sessions-per-source", "9"),
        ("new-per-source", "10"),
        ("http-per-source", "12,13"),
        ("induction-rate", "11,3"),
        ("srt-idle-timeout", "32s"),
        ("webrtc-idle-timeout", "36s"),
        ("origin-setup-timeout", "33s"),
        ("grace-quit-timeout", "34s"),
        ("force-quit-timeout", "35s"),
        ("api-token", "***"),
        ("cluster-secret", "***"),
        ("log", "debug"),
        ("log-format", "json"),
    ] {
        let config = read(name, text).unwrap();
        for setting in SETTINGS {
            let expected = if setting.name == name {
                Some(text.to_owned())
            } else {
                setting.show(&Config::default())
            };
            assert_eq!(setting.show(&config), expected, "{} after {name}", setting.name);
        }
    }
}

#[test]
fn bounds_are_kept() {
    for (name, good, bad) in [
        ("shards", ["1", "256"], ["0", "257"]),
        ("sessions-max", ["1", "1048576"], ["0", "1048577"]),
        ("pending-max", ["1", "1048576"], ["0", "1048577"]),
        ("pending-per-source", ["1", "1048576"], ["0", "1048577"]),
        ("sessions-per-source", ["1", "1048576"], ["0", "1048577"]),
        ("new-per-source", ["1", "100000000"], ["0", "100000001"]),
        ("control-cpu", ["0", "1023"], ["-1", "1024"]),
        ("batch-wait", ["10us", "2ms"], ["9us", "2001us"]),
        ("client-sockets", ["0", "1024"], ["-1", "1025"]),
        ("origin-ttl", ["1ms", "8760h"], ["0", "8761h"]),
        ("origin-check", ["100ms", "1h"], ["99ms", "2h"]),
        ("srt-idle-timeout", ["1ms", "24h"], ["0s", "25h"]),
        ("webrtc-idle-timeout", ["1ms", "24h"], ["0s", "25h"]),
        ("origin-setup-timeout", ["1ms", "24h"], ["0s", "25h"]),
        ("grace-quit-timeout", ["0", "24h"], ["-1s", "25h"]),
        ("force-quit-timeout", ["1ms", "24h"], ["0s", "25h"]),
    ] {
        for text in good {
            assert!(read(name, text).is_ok(), "{name} {text}");
        }
        for text in bad {
            assert!(read(name, text).is_err(), "{name} {text}");
        }
    }
}

#[test]
fn a_wait_that_is_refused_names_its_value_its_bounds_and_how_to_go_without() {
    let refused = |text| read("batch-wait", text).unwrap_err().to_string();
    let remedy = "write off, or a duration from 10us to 2ms such as 250us";
    assert_eq!(refused("3ms"), format!("\"3ms\" is out of bounds; {remedy}"));
    assert_eq!(refused("0"), format!("\"0\" is out of bounds; {remedy}"));
    assert_eq!(refused("250"), format!("\"250\" has no unit; {remedy}"));
    assert_eq!(refused("on"), format!("\"on\" is not a duration; {remedy}"));
}

#[test]
fn an_engine_that_does_not_exist_is_refused_with_those_that_do() {
    let error = read("engine", "tokio").unwrap_err().to_string();
    assert!(error.contains("write auto, uring, mmsg or tokio-uring"), "{error}");
}

#[test]
fn a_log_filter_is_checked() {
    assert!(read("log", "info,ringway::control=debug").is_ok());
    assert!(read("log", "info,ringway::control=loud").is_err());
}

proptest! {
    #[test]
    fn whatever_is_read_shows_as_something_that_reads_the_same(
        index in 0..SETTINGS.len(),
        text in "[a-z0-9:;,./=\\[\\] -]{0,24}",
    ) {
        let setting = &SETTINGS[index];
        let mut config = Config::default();
        if setting.read(&mut config, &text).is_ok() && !setting.is_secret {
            let shown = setting.show(&config).unwrap();
            setting.read(&mut config, &shown).unwrap();
            prop_assert_eq!(setting.show(&config), Some(shown));
        }
    }
}
