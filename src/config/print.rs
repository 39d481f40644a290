//! `ringway config print`: every value and where it was written, as a file that `--config` takes.

use super::settings::{Group, SETTINGS, Setting};
use super::sources::{Place, Resolved};

impl Resolved {
    /// TOML with a source behind each value.
    ///
    /// What has no value and what must not be shown stands in comments, so that the output may be
    /// saved and used.
    pub fn print(&self) -> String {
        let lines: Vec<(Group, String, String)> = SETTINGS
            .iter()
            .zip(&self.places)
            .map(|(setting, place)| {
                (setting.group, self.assignment(setting), self.source(setting, place))
            })
            .collect();
        // Long lists stand out to the right; everything else lines up.
        let widths = lines.iter().map(|(_, assignment, _)| assignment.len());
        let width = widths.filter(|width| *width <= WIDTH_MAX).max().unwrap_or(0);
        let mut text = String::new();
        for group in Group::ALL {
            text.push_str(&format!("# {}\n", group.title()));
            for (_, assignment, source) in lines.iter().filter(|(of, _, _)| *of == group) {
                text.push_str(&format!("{assignment:width$}  # {source}\n"));
            }
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }

    fn assignment(&self, setting: &Setting) -> String {
        // The default origin is the doing of variables that the file has no keys for.
        let mut config = self.config.clone();
        if self.has_default_origin {
            config.origins.pop();
        }
        let name = setting.name;
        match setting.show(&config) {
            None => format!("# {name}: {}", setting.unset),
            Some(text) if setting.is_secret => format!("# {name} = {}", quoted(&text)),
            Some(text) => match setting.separator {
                Some(separator) => {
                    let items: Vec<String> = text.split(separator).map(quoted).collect();
                    format!("{name} = [{}]", items.join(", "))
                }
                None => format!("{name} = {}", quoted(&text)),
            },
        }
    }

    fn source(&self, setting: &Setting, place: &Place) -> String {
        let source = match place {
            Place::Environment | Place::Dotenv => format!("{place} {}", setting.variable),
            Place::Default | Place::File(_) | Place::Flag => place.to_string(),
        };
        match self.config.origins.last() {
            Some(origin) if setting.name == "origin" && self.has_default_origin => format!(
                "{source}; PROXY_DEFAULT_BACKEND_ENABLED adds {}",
                super::origins::show_origin(origin)
            ),
            Some(_) | None => source,
        }
    }
}

/// A TOML string, or the number that it is.
fn quoted(text: &str) -> String {
    match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => text.to_owned(),
        Ok(_) | Err(_) => toml::Value::from(text).to_string(),
    }
}

const WIDTH_MAX: usize = 48;

#[cfg(test)]
mod tests {
    use super::super::sources::{File, Sources, resolve};
    use super::*;

    fn sources(environment: &[(&str, &str)], arguments: &[(&'static str, &str)]) -> Sources {
        Sources {
            environment: environment
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect(),
            arguments: arguments
                .iter()
                .map(|(name, text)| (*name, vec![(*text).to_owned()]))
                .collect(),
            ..Sources::default()
        }
    }

    fn line<'a>(text: &'a str, beginning: &str) -> &'a str {
        text.lines().find(|line| line.starts_with(beginning)).unwrap()
    }

    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }

    #[test]
    fn every_setting_is_printed_with_its_value_and_source() {
        let sources = sources(
            &[("PROXY_SRT_SERVER", "7000")],
            &[("engine", "mmsg"), ("vhosts", "a.example")],
        );
        let text = resolve(&sources).unwrap().print();
        for (beginning, expected) in [
            ("srt-listen", "srt-listen = 7000 # environment PROXY_SRT_SERVER"),
            ("engine", "engine = \"mmsg\" # flag"),
            ("vhosts", "vhosts = [\"a.example\"] # flag"),
            ("system-listen", "system-listen = \"127.0.0.1:12025\" # default"),
            ("# cpus", "# cpus: every CPU this process may use # default"),
        ] {
            assert_eq!(words(line(&text, beginning)), words(expected));
        }
        for setting in SETTINGS {
            assert!(text.contains(setting.name), "{}", setting.name);
        }
    }

    #[test]
    fn secrets_are_masked() {
        let typed = [
            ("api-token", "hunter2"),
            ("register-token", "hunter2"),
            ("cluster-secret", "hunter2"),
        ];
        let text = resolve(&sources(&[], &typed)).unwrap().print();
        assert!(!text.contains("hunter2"));
        assert_eq!(words(line(&text, "# api-token")), words("# api-token = \"***\" # flag"));
    }

    #[test]
    fn what_is_printed_can_be_read_back_and_prints_the_same_values() {
        let typed = [
            (
                "origin",
                "name=a,ip=10.0.0.5,srt=10080,path=/{path}/{kind},host=origin;ip=::1,api=1985",
            ),
            ("public-address", "198.51.100.7,[2001:db8::7]:443"),
            ("tls-cert", "C:\\with \"quotes\".pem"),
            ("tls-key", "key.pem"),
            ("trusted-proxies", "10.0.0.0/8,::1"),
            ("http-per-source", "5,50"),
            ("webrtc-direct", "on"),
            ("webrtc-idle-timeout", "40s"),
            ("cpus", "0-3,8"),
            ("shards", "3"),
            ("allow-origins", "10.1.0.0/16,::1"),
            ("induction-rate", "5000,70"),
            ("srt-listen", "off"),
            ("srt-key-length", "16"),
            ("srt-idle-timeout", "1m30s"),
            ("log", "info,ringway::control=debug"),
        ];
        let printed = resolve(&sources(&[], &typed)).unwrap();
        let file = File { path: "saved.toml".into(), text: printed.print() };
        let read = resolve(&Sources { file: Some(file), ..Sources::default() }).unwrap();
        for setting in SETTINGS {
            assert_eq!(setting.show(&read.config), setting.show(&printed.config));
        }
    }

    #[test]
    fn the_default_origin_is_told_and_not_saved() {
        let text =
            resolve(&sources(&[("PROXY_DEFAULT_BACKEND_ENABLED", "on")], &[])).unwrap().print();
        let line = line(&text, "# origin:");
        assert!(
            line.ends_with("adds name=default,ip=127.0.0.1,srt=10080,rtc=8000,api=1985"),
            "{line}"
        );
    }
}
