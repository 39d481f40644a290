//! What a person sees while a measurement runs: a line per second, and on a terminal a bar below.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Lines, and a bar on a terminal.
pub struct Progress {
    /// Absent where nobody would see it move.
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins. Without a `duration` the bar shows the time alone.
    #[must_use]
    pub fn start(duration: Option<Duration>) -> Self {
        let bar = io::stdout().is_terminal().then(|| {
            let length = duration.map(|duration| duration.as_millis() as u64);
            let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stdout());
            let template = if length.is_some() { BOUNDED } else { ENDLESS };
            bar.set_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        Self { bar }
    }

    /// Shows a line that stays.
    ///
    /// # Errors
    /// Standard output is gone.
    pub fn line(&self, text: &str) -> io::Result<()> {
        match &self.bar {
            Some(bar) => bar.suspend(|| writeln!(io::stdout(), "{text}")),
            None => writeln!(io::stdout(), "{text}"),
        }
    }

    /// Moves the bar.
    pub fn advance(&self, elapsed: Duration, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(message.to_owned());
            bar.set_position(elapsed.as_millis() as u64);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

const BOUNDED: &str = "{elapsed} [{bar:30}] {eta} left  {msg}";
const ENDLESS: &str = "{elapsed} {spinner} {msg}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_are_valid() {
        for template in [BOUNDED, ENDLESS] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
