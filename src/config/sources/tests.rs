//! Who wins, and what an error says of where a value came from.

use super::super::{EngineChoice, Offload};
use super::*;

fn variables(pairs: &[(&str, &str)]) -> Variables {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn flags(pairs: &[(&'static str, &[&str])]) -> BTreeMap<&'static str, Vec<String>> {
    let typed = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    pairs.iter().map(|(name, texts)| (*name, typed(texts))).collect()
}

fn file(text: &str) -> Option<File> {
    Some(File { path: "ringway.toml".into(), text: text.to_owned() })
}

fn from_file(text: &str) -> Result<Resolved, ConfigError> {
    resolve(&Sources { file: file(text), ..Sources::default() })
}

fn from_flags(pairs: &[(&'static str, &[&str])]) -> Result<Resolved, ConfigError> {
    resolve(&Sources { arguments: flags(pairs), ..Sources::default() })
}

fn from_environment(pairs: &[(&str, &str)]) -> Result<Resolved, ConfigError> {
    resolve(&Sources { environment: variables(pairs), ..Sources::default() })
}

#[test]
fn without_sources_everything_is_the_default() {
    let resolved = resolve(&Sources::default()).unwrap();
    for setting in SETTINGS {
        assert_eq!(setting.show(&resolved.config), setting.show(&Config::default()));
        assert_eq!(*resolved.place(setting.name), Place::Default);
    }
    assert_eq!(resolved.notices, []);
}

#[test]
fn each_source_wins_over_the_weaker_ones() {
    let mut sources = Sources::default();
    let port = |sources: &Sources| {
        let resolved = resolve(sources).unwrap();
        (resolved.config.srt_listen, resolved.place("srt-listen").clone())
    };
    assert_eq!(port(&sources), (Listen::All(20080), Place::Default));
    sources.file = file("srt-listen = 1");
    assert_eq!(port(&sources), (Listen::All(1), Place::File("ringway.toml".into())));
    sources.dotenv = variables(&[("PROXY_SRT_SERVER", "2")]);
    assert_eq!(port(&sources), (Listen::All(2), Place::Dotenv));
    sources.environment = variables(&[("PROXY_SRT_SERVER", "3")]);
    assert_eq!(port(&sources), (Listen::All(3), Place::Environment));
    sources.arguments = flags(&[("srt-listen", &["4"])]);
    assert_eq!(port(&sources), (Listen::All(4), Place::Flag));
}

#[test]
fn an_empty_variable_is_not_set() {
    let sources = Sources {
        dotenv: variables(&[("PROXY_SRT_SERVER", "7000")]),
        environment: variables(&[("PROXY_SRT_SERVER", " ")]),
        ..Sources::default()
    };
    assert_eq!(resolve(&sources).unwrap().config.srt_listen, Listen::All(7000));
}

#[test]
fn dotenv_fills_only_what_the_environment_lacks() {
    let sources = Sources {
        dotenv: variables(&[("PROXY_DEFAULT_BACKEND_ENABLED", "on"), ("RINGWAY_GSO", "off")]),
        environment: variables(&[("PROXY_DEFAULT_BACKEND_ENABLED", "off")]),
        ..Sources::default()
    };
    let resolved = resolve(&sources).unwrap();
    assert_eq!(resolved.config.origins, []);
    assert_eq!(resolved.config.gso, Offload::Off);
}

#[test]
fn a_stronger_list_replaces_the_weaker_one() {
    let sources = Sources {
        environment: variables(&[("RINGWAY_ORIGINS", "name=a,ip=10.0.0.1;name=b,ip=10.0.0.2")]),
        arguments: flags(&[("origin", &["name=c,ip=10.0.0.3", "name=d,ip=10.0.0.4"])]),
        ..Sources::default()
    };
    let origins = resolve(&sources).unwrap().config.origins;
    let names: Vec<&str> = origins.iter().map(|origin| origin.name.as_str()).collect();
    assert_eq!(names, ["c", "d"]);
}

#[test]
fn a_file_may_hold_strings_numbers_booleans_and_arrays() {
    let config = from_file(
        "engine = 'mmsg'\nshards = 2\ngso = false\ncpus = ['0-1', 3]\nvhosts = 'a,b'\n\
         origin = ['ip=10.0.0.1', 'ip=10.0.0.2']",
    );
    let config = config.unwrap().config;
    assert_eq!(config.engine, EngineChoice::Mmsg);
    assert_eq!((config.shards, config.gso), (Some(2), Offload::Off));
    assert_eq!((config.cpus, config.vhosts.len()), (Some(vec![0, 1, 3]), 2));
    assert_eq!(config.origins.len(), 2);
}

#[test]
fn an_unknown_key_is_refused_and_named() {
    for (text, message) in [
        ("srt_listen = 1", "ringway.toml: there is no key \"srt_listen\"; write srt-listen"),
        ("origins = []", "ringway.toml: there is no key \"origins\"; write origin"),
        (
            "PROXY_HTTP_API = 1",
            "ringway.toml: there is no key \"PROXY_HTTP_API\"; write http-listen",
        ),
        (
            "[limits]\nx = 1",
            "ringway.toml: there is no key \"limits\"; write the name of a flag as \
             `ringway serve --help` lists it",
        ),
    ] {
        assert_eq!(from_file(text).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_value_of_a_foreign_type_is_refused() {
    for (text, message) in [
        ("shards = 1.5", "ringway.toml: shards is a fraction; write a string or a number"),
        (
            "shards = [1]",
            "ringway.toml: shards is an array that does not fit; write a string or a number",
        ),
        (
            "origin = [{ip = 'a'}]",
            "ringway.toml: origin is an array that does not fit; \
             write a string or an array of strings",
        ),
    ] {
        assert_eq!(from_file(text).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_the_line() {
    let error = from_file("engine = 'mmsg'\nshards =\n").unwrap_err().to_string();
    assert!(error.starts_with("ringway.toml: TOML parse error at line 2"), "{error}");
}

#[test]
fn an_error_names_the_source_the_value_and_what_to_write() {
    let rest = "\"0\" is out of bounds; write a number from 1 to 256";
    let in_file = from_file("shards = 0").unwrap_err().to_string();
    assert_eq!(in_file, format!("shards in ringway.toml: {rest}"));
    let in_environment = from_environment(&[("RINGWAY_SHARDS", "0")]).unwrap_err().to_string();
    assert_eq!(in_environment, format!("RINGWAY_SHARDS: {rest}"));
    let typed = from_flags(&[("shards", &["0"])]).unwrap_err().to_string();
    assert_eq!(typed, format!("--shards: {rest}"));
    let dotenv = variables(&[("RINGWAY_SHARDS", "0")]);
    let in_dotenv = resolve(&Sources { dotenv, ..Sources::default() }).unwrap_err().to_string();
    assert_eq!(in_dotenv, format!("RINGWAY_SHARDS in .env: {rest}"));
}

#[test]
fn a_bad_value_is_refused_although_a_stronger_one_replaces_it() {
    let sources = Sources {
        environment: variables(&[("RINGWAY_SHARDS", "many")]),
        arguments: flags(&[("shards", &["2"])]),
        ..Sources::default()
    };
    assert!(resolve(&sources).unwrap_err().to_string().starts_with("RINGWAY_SHARDS:"));
}

#[test]
fn an_error_about_a_secret_does_not_show_it() {
    let error = from_environment(&[("RINGWAY_API_TOKEN", "hunter 2")]).unwrap_err();
    assert!(error.to_string().starts_with("RINGWAY_API_TOKEN: \"***\" is empty, too long"));
}

#[test]
fn more_shards_than_listed_cpus_contradict() {
    let error = from_flags(&[("cpus", &["0-1"]), ("shards", &["3"])]).unwrap_err().to_string();
    assert_eq!(
        error,
        "--shards asks for 3 shards and --cpus lists 2 CPUs; \
         name a CPU for each shard, or leave one of them out"
    );
}

#[test]
fn fewer_shards_than_listed_cpus_are_fine() {
    assert!(from_flags(&[("cpus", &["0-3"]), ("shards", &["3"])]).is_ok());
}

#[test]
fn more_cpus_than_shards_can_be_contradict_the_limit() {
    let error = from_flags(&[("cpus", &["0-256"])]).unwrap_err().to_string();
    assert!(error.contains("lists 257 CPUs, which makes more than 256 shards"), "{error}");
    assert!(from_flags(&[("cpus", &["0-256"]), ("shards", &["256"])]).is_ok());
}

#[test]
fn waiting_for_datagrams_and_the_engine_that_cannot_contradict() {
    let on = |engine: &'static str, wait: &'static str| {
        from_flags(&[("engine", &[engine]), ("batch-wait", &[wait])])
    };
    assert_eq!(
        on("tokio-uring", "250us").unwrap_err().to_string(),
        "--batch-wait is 250us and --engine is tokio-uring, which never waits for several \
         datagrams; leave one of them out, or take another engine"
    );
    assert!(on("tokio-uring", "off").is_ok());
    for engine in ["auto", "uring", "mmsg"] {
        assert!(on(engine, "250us").is_ok(), "{engine}");
    }
}

#[test]
fn a_grace_longer_than_the_force_timeout_is_said() {
    let notices = from_flags(&[("grace-quit-timeout", &["60s"])]).unwrap().notices;
    assert!(notices[0].to_string().contains("longer than --force-quit-timeout 30s"));
}

#[test]
fn an_origin_that_can_have_no_streams_is_said() {
    let notices = from_flags(&[("origin", &["name=a,ip=10.0.0.1,rtc=8000"])]).unwrap().notices;
    assert!(notices[0].to_string().starts_with("origin a has neither srt= nor api="));
    for of_use in ["srt=1", "api=1", "path=/{path}/whip", "host=origin"] {
        let origin = format!("ip=10.0.0.1,{of_use}");
        assert_eq!(from_flags(&[("origin", &[&origin])]).unwrap().notices, [], "{of_use}");
    }
}

#[test]
fn a_port_for_clients_without_signalling_is_nothing_while_they_are_not_relayed() {
    let origin = ["name=a,ip=10.0.0.1,api=1,direct=8000"];
    let notices = from_flags(&[("origin", &origin)]).unwrap().notices;
    assert!(notices[0].to_string().starts_with("direct= of origin a has no effect"));
    let both: [(_, &[&str]); 2] = [("origin", &origin), ("webrtc-direct", &["on"])];
    assert_eq!(from_flags(&both).unwrap().notices, []);
}

#[test]
fn srt_and_webrtc_cannot_share_a_port() {
    let same = from_flags(&[("srt-listen", &["18000"])]).unwrap_err().to_string();
    assert_eq!(
        same,
        "--srt-listen is 18000 and the default of --webrtc-listen is 18000: SRT and WebRTC \
         cannot share a UDP port; choose another port for one of them"
    );
    for (srt, webrtc, is_fine) in [
        ("10.0.0.1:9", "9", false),
        ("10.0.0.1:9", "10.0.0.1:9", false),
        ("10.0.0.1:9", "0.0.0.0:9", false),
        ("[::1]:9", "[::]:9", false),
        ("127.0.0.1:9", "[::]:9", false),
        ("10.0.0.1:9", "10.0.0.2:9", true),
        ("127.0.0.1:9", "[::1]:9", true),
        ("10.0.0.1:0", "10.0.0.1:0", true),
        ("0", "0", true),
        ("off", "9", true),
        ("9", "off", true),
    ] {
        let resolved = from_flags(&[("srt-listen", &[srt]), ("webrtc-listen", &[webrtc])]);
        assert_eq!(resolved.is_ok(), is_fine, "{srt} {webrtc}");
    }
}

#[test]
fn a_relay_without_any_listener_for_media_is_refused() {
    let error = from_flags(&[("srt-listen", &["off"]), ("webrtc-listen", &["off"])]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "--srt-listen and --webrtc-listen are both off, so that nothing would be relayed; \
         give one of them a port"
    );
}

#[test]
fn a_certificate_and_its_key_come_together_from_wherever() {
    let sources = Sources {
        environment: variables(&[("RINGWAY_TLS_CERT", "a.pem")]),
        arguments: flags(&[("tls-key", &["b.pem"])]),
        ..Sources::default()
    };
    let files = TlsFiles { cert: "a.pem".into(), key: "b.pem".into() };
    assert_eq!(resolve(&sources).unwrap().config.tls, Some(files));
}

#[test]
fn a_certificate_without_its_key_is_refused_and_the_other_way_round() {
    let alone = from_environment(&[("RINGWAY_TLS_CERT", "a.pem")]).unwrap_err().to_string();
    assert_eq!(
        alone,
        "RINGWAY_TLS_CERT is set and --tls-key is not; TLS takes both: set --tls-key, or \
         leave out RINGWAY_TLS_CERT"
    );
    let alone = from_flags(&[("tls-key", &["a.pem"])]).unwrap_err().to_string();
    assert!(alone.starts_with("--tls-key is set and --tls-cert is not"), "{alone}");
}

#[test]
fn certificates_for_no_listener_are_said() {
    let notices = from_flags(&[
        ("tls-cert", &["a.pem"]),
        ("tls-key", &["b.pem"]),
        ("http-listen", &["off"]),
        ("webrtc-listen", &["off"]),
    ]);
    let notices = notices.unwrap().notices;
    assert_eq!(notices.len(), 1);
    assert!(notices[0].to_string().starts_with("--tls-cert and --tls-key have no effect"));
}

#[test]
fn webrtc_without_an_http_api_is_said_unless_clients_may_do_without() {
    let off: (_, &[&str]) = ("http-listen", &["off"]);
    let notices = from_flags(&[off]).unwrap().notices;
    assert!(notices[0].to_string().contains("no WebRTC client can ask for a session"));
    assert_eq!(from_flags(&[off, ("webrtc-direct", &["on"])]).unwrap().notices, []);
    assert_eq!(from_flags(&[off, ("webrtc-listen", &["off"])]).unwrap().notices, []);
}

#[test]
fn candidates_that_are_all_loopback_are_said() {
    for (name, text, is_said) in [
        ("public-address", "127.0.0.1,::1", true),
        ("public-address", "127.0.0.1,198.51.100.7", false),
        ("http-listen", "127.0.0.1:11985", true),
        ("http-listen", "10.0.0.1:11985", false),
        ("webrtc-listen", "127.0.0.1:18000", true),
        ("webrtc-listen", "0.0.0.0:18000", false),
    ] {
        let notices = from_flags(&[(name, &[text])]).unwrap().notices;
        let said = notices.iter().any(|notice| notice.to_string().contains("loopback"));
        assert_eq!(said, is_said, "--{name} {text}");
    }
    let elsewhere = [("http-listen", &["127.0.0.1:1"][..]), ("public-address", &["198.51.100.7"])];
    assert_eq!(from_flags(&elsewhere).unwrap().notices, []);
}

#[test]
fn a_mistyped_variable_of_ours_is_said() {
    let notices = from_environment(&[("RINGWAY_SHARD", "2"), ("RINGWAY_CONFIG", "x")]);
    let notices = notices.unwrap().notices;
    assert_eq!(notices.len(), 1);
    assert!(notices[0].to_string().starts_with("RINGWAY_SHARD has no effect"));
}
