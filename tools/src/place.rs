//! Which CPUs the relay and the tool have: a measurement is worth something while they do not share
//! one.

use anyhow::{Context as _, ensure};

use crate::measure;

/// The CPUs of a measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the relaying thread, where the tool starts the relay.
    pub relay: usize,
    /// Of everything else.
    pub tool: Vec<usize>,
}

impl Place {
    /// The first CPU that this process may use for a relay that is started here, the others for the
    /// tool.
    ///
    /// # Errors
    /// There is only one: the relay would be measured while it waits for the tool.
    pub fn apart() -> anyhow::Result<Self> {
        Self::of(&measure::allowed_cpus())
    }

    /// All CPUs that this process may use for the tool: the relay runs already, and where is the
    /// operator's choice.
    ///
    /// # Errors
    /// There is none.
    pub fn beside_running() -> anyhow::Result<Self> {
        let tool = measure::allowed_cpus();
        let relay = *tool.first().context("this process may use no CPU")?;
        Ok(Self { relay, tool })
    }

    fn of(cpus: &[usize]) -> anyhow::Result<Self> {
        let (relay, tool) = cpus.split_first().context("this process may use no CPU")?;
        ensure!(
            !tool.is_empty(),
            "a measurement needs two CPUs, for the relay must have one for itself: allow this \
             process another one, or measure a running relay on another machine by its address"
        );
        Ok(Self { relay: *relay, tool: tool.to_vec() })
    }

    /// Of the relay's control thread: no wake-up of its own disturbs the relaying one.
    #[must_use]
    pub fn control(&self) -> usize {
        self.tool.first().copied().unwrap_or(self.relay)
    }

    /// Binds the calling thread, and those it starts later, to the tool's CPUs.
    ///
    /// # Errors
    /// A cpuset forbids them.
    pub fn leave_relay(&self) -> anyhow::Result<()> {
        measure::pin(&self.tool).context("leave the relay's CPU")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_has_the_first_cpu_for_itself() {
        let place = Place::of(&[2, 5, 7]).unwrap();
        assert_eq!(place, Place { relay: 2, tool: vec![5, 7] });
        assert_eq!(place.control(), 5);
    }

    #[test]
    fn a_single_cpu_is_refused() {
        let error = Place::of(&[0]).unwrap_err().to_string();
        assert!(error.contains("needs two CPUs"), "{error}");
        assert!(Place::of(&[]).is_err());
    }
}
