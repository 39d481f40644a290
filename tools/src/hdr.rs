//! Histograms as `HdrHistogram`'s tools read them: one in base64, or one per second in an interval
//! log.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

/// A compressed V2 histogram in base64. `None` of an empty one.
#[must_use]
pub fn encode(histogram: &Histogram<u64>) -> Option<String> {
    let mut bytes = Vec::new();
    // Writing into memory cannot fail, and the bounds of a histogram fit its own format.
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).ok()?;
    (!histogram.is_empty()).then(|| STANDARD.encode(bytes))
}

/// Reads what [`encode`] wrote. `None` if it is something else.
#[must_use]
pub fn decode(text: &str) -> Option<Histogram<u64>> {
    let bytes = STANDARD.decode(text).ok()?;
    Deserializer::new().deserialize(&mut bytes.as_slice()).ok()
}

/// A log of compressed V2 histograms, one line each, that `HistogramLogProcessor` and the like read.
/// Values are nanoseconds; the maxima in clear are milliseconds.
pub struct IntervalLog {
    file: BufWriter<File>,
    path: PathBuf,
}

impl IntervalLog {
    /// Begins a log. Intervals are told from `started` on.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path, started: SystemTime, comment: &str) -> anyhow::Result<Self> {
        let path = path.to_owned();
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let mut log = Self { file: BufWriter::new(file), path };
        let mut head = Vec::new();
        IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment(comment)
            .with_start_time(started)
            .with_base_time(started)
            .begin_log_with(&mut head, &mut V2DeflateSerializer::new())?;
        head.extend_from_slice(LEGEND.as_bytes());
        log.write_bytes(&head)?;
        Ok(log)
    }

    /// Adds what was recorded for `length` from `start` on.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(
        &mut self,
        histogram: &Histogram<u64>,
        start: Duration,
        length: Duration,
        tag: Option<&str>,
    ) -> anyhow::Result<()> {
        let mut line = Vec::new();
        IntervalLogWriterBuilder::new()
            .with_max_value_divisor(1.0)
            .begin_log_with(&mut line, &mut V2DeflateSerializer::new())?
            .write_histogram(histogram, start, length, tag.and_then(Tag::new))
            .with_context(|| format!("write {}", self.path.display()))?;
        self.write_bytes(&line)
    }

    /// Each line is on disk when this returns: a log of a run that was killed is still one.
    fn write_bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let context = || format!("write {}", self.path.display());
        self.file.write_all(bytes).with_context(context)?;
        self.file.flush().with_context(context)
    }
}

const LEGEND: &str = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\
                      \"Interval_Compressed_Histogram\"\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = payload::nanoseconds();
        values.iter().for_each(|value| histogram.record(*value).unwrap());
        histogram
    }

    #[test]
    fn a_histogram_is_read_back_from_its_text() {
        let histogram = histogram(&[1_000, 2_000, 50_000_000]);
        let read = decode(&encode(&histogram).unwrap()).unwrap();
        assert_eq!(read, histogram);
        assert!(decode("no histogram").is_none());
    }

    #[test]
    fn an_empty_histogram_has_no_text() {
        assert_eq!(encode(&histogram(&[])), None);
    }

    #[test]
    fn a_log_is_read_back_with_its_intervals_and_tags() {
        let path = std::env::temp_dir().join(format!("ringway-hdr-{}", std::process::id()));
        let mut log = IntervalLog::create(&path, SystemTime::now(), "one way").unwrap();
        let second = Duration::from_secs(1);
        log.write(&histogram(&[5_000]), Duration::ZERO, second, None).unwrap();
        log.write(&histogram(&[7_000, 9_000]), second, second, Some("srt")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        // The reader of this crate knows no legend.
        let text = text.replace(LEGEND, "");
        let entries: Vec<_> = IntervalLogIterator::new(text.as_bytes())
            .filter_map(|entry| match entry.unwrap() {
                LogEntry::Interval(interval) => Some((
                    interval.start_timestamp(),
                    interval.tag().map(|tag| tag.as_str().to_owned()),
                    decode(interval.encoded_histogram()).unwrap().len(),
                )),
                LogEntry::StartTime(_) | LogEntry::BaseTime(_) => None,
            })
            .collect();
        assert_eq!(entries, [(Duration::ZERO, None, 1), (second, Some("srt".to_owned()), 2)]);
        assert!(text.starts_with("#[Histogram log format version 1.3]\n"));
    }
}
