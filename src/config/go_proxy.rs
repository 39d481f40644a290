//! The variables of the SRS Go proxy: what each of them does here.
//!
//! A host that runs the Go proxy can start Ringway in the same environment. Most variables are
//! settings of ours and are read with the others; the rest is the default origin, which only
//! variables can describe, and what this version does not do, which is accepted and said.

use super::sources::{ConfigError, Place, Resolved, Variables};
use super::{Listen, Notice, StaticOrigin};
use super::{origins, values};

/// One variable of the Go proxy.
#[derive(Clone, Copy, Debug)]
pub struct GoVariable {
    /// Its name.
    pub name: &'static str,
    /// What happens with it.
    pub fate: Fate,
    /// What whoever migrates has to know.
    pub note: &'static str,
}

/// What happens with a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It sets this flag.
    Setting(&'static str),
    /// It describes the default origin.
    DefaultOrigin,
    /// It is accepted, named in a warning and otherwise without effect.
    NotRelayed,
}

/// Every variable of the Go proxy, in the order of its documentation.
pub static GO_VARIABLES: &[GoVariable] = &[
    GoVariable { name: "PROXY_SRT_SERVER", fate: Fate::Setting("srt-listen"), note: "The same." },
    GoVariable {
        name: "PROXY_WEBRTC_SERVER",
        fate: Fate::Setting("webrtc-listen"),
        note: "The same. What SDP candidates say is `--public-address`.",
    },
    GoVariable {
        name: "PROXY_HTTP_API",
        fate: Fate::Setting("http-listen"),
        note: "The same: WHIP, WHEP and the older API. With `--tls-cert` and `--tls-key` over TLS.",
    },
    GoVariable {
        name: "PROXY_SYSTEM_API",
        fate: Fate::Setting("system-listen"),
        note: "The default is loopback only. Set `:12025` where origins on other hosts register.",
    },
    GoVariable {
        name: "PROXY_ORIGIN_SERVER_TTL",
        fate: Fate::Setting("origin-ttl"),
        note: "The same. An origin whose registration has expired gets no new streams.",
    },
    GoVariable {
        name: "PROXY_GRACE_QUIT_TIMEOUT",
        fate: Fate::Setting("grace-quit-timeout"),
        note: "Live sessions may go on for this long, too.",
    },
    GoVariable {
        name: "PROXY_FORCE_QUIT_TIMEOUT",
        fate: Fate::Setting("force-quit-timeout"),
        note: "The same.",
    },
    GoVariable {
        name: "PROXY_LOAD_BALANCER_TYPE",
        fate: Fate::Setting("balancer"),
        note: "`memory`. `redis` is a configuration error in this version; so is any other word.",
    },
    GoVariable {
        name: "PROXY_DEFAULT_BACKEND_ENABLED",
        fate: Fate::DefaultOrigin,
        note: "Exactly `on` adds a static origin named `default`.",
    },
    GoVariable {
        name: "PROXY_DEFAULT_BACKEND_IP",
        fate: Fate::DefaultOrigin,
        note: "`127.0.0.1` if unset. An IP address; names are not looked up.",
    },
    GoVariable {
        name: "PROXY_DEFAULT_BACKEND_SRT",
        fate: Fate::DefaultOrigin,
        note: "`10080` if unset.",
    },
    GoVariable {
        name: "PROXY_DEFAULT_BACKEND_RTC",
        fate: Fate::DefaultOrigin,
        note: "`8000` if unset.",
    },
    GoVariable {
        name: "PROXY_DEFAULT_BACKEND_API",
        fate: Fate::DefaultOrigin,
        note: "`1985` if unset.",
    },
    GoVariable {
        name: "PROXY_DEFAULT_BACKEND_RTMP",
        fate: Fate::NotRelayed,
        note: "RTMP is not relayed.",
    },
    GoVariable {
        name: "PROXY_DEFAULT_BACKEND_HTTP",
        fate: Fate::NotRelayed,
        note: "HTTP streams are not relayed.",
    },
    GoVariable { name: "PROXY_RTMP_SERVER", fate: Fate::NotRelayed, note: "RTMP is not relayed." },
    GoVariable {
        name: "PROXY_HTTP_SERVER",
        fate: Fate::NotRelayed,
        note: "HTTP streams are not relayed.",
    },
    GoVariable {
        name: "PROXY_STATIC_FILES",
        fate: Fate::NotRelayed,
        note: "No static files are served.",
    },
    GoVariable {
        name: "PROXY_REDIS_HOST",
        fate: Fate::NotRelayed,
        note: "Redis is not in this version.",
    },
    GoVariable {
        name: "PROXY_REDIS_PORT",
        fate: Fate::NotRelayed,
        note: "Redis is not in this version.",
    },
    GoVariable {
        name: "PROXY_REDIS_PASSWORD",
        fate: Fate::NotRelayed,
        note: "Redis is not in this version.",
    },
    GoVariable {
        name: "PROXY_REDIS_DB",
        fate: Fate::NotRelayed,
        note: "Redis is not in this version.",
    },
    GoVariable {
        name: "PROXY_REDIS_KEY_PREFIX",
        fate: Fate::NotRelayed,
        note: "Redis is not in this version.",
    },
    GoVariable { name: "GO_PPROF", fate: Fate::NotRelayed, note: "There is no Go profiler." },
];

/// Does what the variables ask for that are no settings, and says what is not done.
pub(super) fn apply(variables: &Variables, resolved: &mut Resolved) -> Result<(), ConfigError> {
    if let Some(origin) = default_origin(variables)? {
        if resolved.config.origins.iter().any(|other| other.name == origin.name) {
            return Err(ConfigError::Contradiction(format!(
                "PROXY_DEFAULT_BACKEND_ENABLED adds an origin named {0}, and there is one named \
                 {0}; give that one another name=, or unset the variable",
                origin.name,
            )));
        }
        resolved.config.origins.push(origin);
        resolved.has_default_origin = true;
    }
    for variable in GO_VARIABLES.iter().filter(|variable| variable.fate == Fate::NotRelayed) {
        if variables.contains_key(variable.name) {
            let text = format!("{} is set and has no effect: {}", variable.name, variable.note);
            resolved.notices.push(Notice::new(text));
        }
    }
    if let Some(text) =
        variables.get(ENABLED).filter(|text| !["on", "off"].contains(&text.as_str()))
    {
        let text = format!("{ENABLED}={text:?} adds no default origin: only on does");
        resolved.notices.push(Notice::new(text));
    }
    resolved.notices.extend(system_api_notice(variables, resolved));
    Ok(())
}

/// The origin that `PROXY_DEFAULT_BACKEND_*` describes, with the Go proxy's defaults.
fn default_origin(variables: &Variables) -> Result<Option<StaticOrigin>, ConfigError> {
    if variables.get(ENABLED).map(String::as_str) != Some("on") {
        return Ok(None);
    }
    let text = |name: &str, default: &'static str| {
        variables.get(name).cloned().unwrap_or_else(|| default.to_owned())
    };
    let port = |name: &'static str, default| {
        values::number(&text(name, default), 1, u16::MAX)
            .map_err(|bad| ConfigError::Value { place: name.to_owned(), bad })
    };
    let ip = origins::origin_ip(&text("PROXY_DEFAULT_BACKEND_IP", "127.0.0.1"))
        .map_err(|bad| ConfigError::Value { place: "PROXY_DEFAULT_BACKEND_IP".to_owned(), bad })?;
    Ok(Some(StaticOrigin {
        srt: Some(port("PROXY_DEFAULT_BACKEND_SRT", "10080")?),
        rtc: Some(port("PROXY_DEFAULT_BACKEND_RTC", "8000")?),
        api: Some(port("PROXY_DEFAULT_BACKEND_API", "1985")?),
        ..StaticOrigin::at("default", ip)
    }))
}

/// The one difference that bites: origins on other hosts no longer reach the system API.
fn system_api_notice(variables: &Variables, resolved: &Resolved) -> Option<Notice> {
    let comes_from_go = variables.keys().any(|name| name.starts_with("PROXY_"));
    let is_unset = *resolved.place("system-listen") == Place::Default;
    let Listen::At(address) = resolved.config.system_listen else {
        return None;
    };
    (comes_from_go && is_unset).then(|| {
        Notice::new(format!(
            "the system API listens on {address}, for this host only; set PROXY_SYSTEM_API=:{} \
             where origins on other hosts register",
            address.port(),
        ))
    })
}

const ENABLED: &str = "PROXY_DEFAULT_BACKEND_ENABLED";

#[cfg(test)]
mod tests {
    use super::super::settings::by_name;
    use super::super::sources::{Sources, resolve};
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Resolved, ConfigError> {
        let pairs = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        resolve(&Sources { environment: pairs.collect(), ..Sources::default() })
    }

    fn notices(variables: &[(&str, &str)]) -> Vec<String> {
        with(variables).unwrap().notices.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_variable_that_sets_a_flag_is_that_flags_twin() {
        for variable in GO_VARIABLES {
            if let Fate::Setting(flag) = variable.fate {
                assert_eq!(by_name(flag).unwrap().variable, variable.name);
            }
        }
    }

    #[test]
    fn every_proxy_twin_of_a_flag_is_in_the_migration_table() {
        for setting in super::super::settings::SETTINGS {
            if setting.variable.starts_with("PROXY_") {
                let fate = Fate::Setting(setting.name);
                assert!(
                    GO_VARIABLES.iter().any(|v| v.name == setting.variable && v.fate == fate),
                    "{}",
                    setting.variable
                );
            }
        }
    }

    #[test]
    fn the_readme_holds_the_migration_table() {
        let mut table = String::from("| variable | flag | note |\n|---|---|---|\n");
        for variable in GO_VARIABLES {
            let flag = match variable.fate {
                Fate::Setting(flag) => format!("`--{flag}`"),
                Fate::DefaultOrigin => "none; the same as an `--origin`".to_owned(),
                Fate::NotRelayed => "none; named in a warning".to_owned(),
            };
            table.push_str(&format!("| `{}` | {flag} | {} |\n", variable.name, variable.note));
        }
        let readme = include_str!("../../README.md");
        assert!(readme.contains(&table), "README.md lacks this table:\n{table}");
    }

    #[test]
    fn the_default_origin_has_the_go_proxys_defaults() {
        let resolved = with(&[(ENABLED, "on")]).unwrap();
        let expected = StaticOrigin {
            srt: Some(10080),
            rtc: Some(8000),
            api: Some(1985),
            ..StaticOrigin::at("default", [127, 0, 0, 1].into())
        };
        assert_eq!(resolved.config.origins, [expected]);
    }

    #[test]
    fn the_default_origin_follows_its_variables() {
        let resolved = with(&[
            (ENABLED, "on"),
            ("PROXY_DEFAULT_BACKEND_IP", "10.0.0.5"),
            ("PROXY_DEFAULT_BACKEND_SRT", "10081"),
            ("PROXY_DEFAULT_BACKEND_RTC", "8001"),
            ("PROXY_DEFAULT_BACKEND_API", "1986"),
        ]);
        let origin = resolved.unwrap().config.origins.remove(0);
        assert_eq!((origin.srt, origin.rtc, origin.api), (Some(10081), Some(8001), Some(1986)));
        assert_eq!(origin.ip.to_string(), "10.0.0.5");
    }

    #[test]
    fn the_default_origin_joins_the_others() {
        let resolved = with(&[(ENABLED, "on"), ("RINGWAY_ORIGINS", "name=a,ip=10.0.0.5,srt=1")]);
        let names: Vec<String> =
            resolved.unwrap().config.origins.into_iter().map(|origin| origin.name).collect();
        assert_eq!(names, ["a", "default"]);
    }

    #[test]
    fn a_second_origin_named_default_is_refused() {
        let error = with(&[(ENABLED, "on"), ("RINGWAY_ORIGINS", "name=default,ip=10.0.0.5")]);
        assert!(error.unwrap_err().to_string().contains("give that one another name="));
    }

    #[test]
    fn only_on_adds_the_default_origin() {
        for text in ["ON", "1", "true", "off", ""] {
            assert_eq!(with(&[(ENABLED, text)]).unwrap().config.origins, [], "{text}");
        }
        assert!(notices(&[(ENABLED, "true")]).iter().any(|notice| notice.contains("only on does")));
    }

    #[test]
    fn a_bad_default_origin_names_its_variable() {
        for (name, text, message) in [
            (
                "PROXY_DEFAULT_BACKEND_SRT",
                "70000",
                "PROXY_DEFAULT_BACKEND_SRT: \"70000\" is out of bounds; \
                 write a number from 1 to 65535",
            ),
            (
                "PROXY_DEFAULT_BACKEND_IP",
                "origin.example",
                "PROXY_DEFAULT_BACKEND_IP: \"origin.example\" is not an IP address (names are not \
                 looked up); write an IP address such as 10.0.0.5 or 2001:db8::5",
            ),
        ] {
            let error = with(&[(ENABLED, "on"), (name, text)]).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn what_is_not_relayed_is_accepted_and_named_once_each() {
        for variable in GO_VARIABLES.iter().filter(|v| v.fate == Fate::NotRelayed) {
            let notices = notices(&[(variable.name, "1")]);
            let lines = notices.iter().filter(|notice| notice.contains(variable.name)).count();
            assert_eq!(lines, 1, "{}", variable.name);
        }
    }

    #[test]
    fn a_notice_never_repeats_a_value() {
        let notices = notices(&[("PROXY_REDIS_PASSWORD", "hunter2")]);
        assert!(!notices.iter().any(|notice| notice.contains("hunter2")));
    }

    #[test]
    fn the_memory_balancer_is_what_there_is() {
        assert!(with(&[("PROXY_LOAD_BALANCER_TYPE", "memory")]).is_ok());
    }

    #[test]
    fn other_balancers_are_configuration_errors() {
        for (text, message) in [
            ("redis", "\"redis\" asks for Redis, which is not in this version; write memory"),
            ("consul", "\"consul\" is not one of the words this takes; write memory"),
        ] {
            let error = with(&[("PROXY_LOAD_BALANCER_TYPE", text)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("PROXY_LOAD_BALANCER_TYPE: {message}")), "{error}");
        }
    }

    #[test]
    fn a_go_environment_without_a_system_api_is_told_that_it_is_local() {
        let about_system = |variables| {
            notices(variables).iter().any(|notice| notice.contains("PROXY_SYSTEM_API=:12025"))
        };
        assert!(about_system(&[("PROXY_SRT_SERVER", "20080")]));
        assert!(!about_system(&[("PROXY_SRT_SERVER", "20080"), ("PROXY_SYSTEM_API", "12025")]));
        assert!(!about_system(&[("RINGWAY_LOG", "info")]));
    }
}
