//! What sessions send, as the command line says it for either protocol.

use anyhow::ensure;

use crate::shape::{Rhythm, Shape};
use crate::{payload, station, webrtc};

/// Shape, rate and size of the media.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Media")]
pub struct MediaArguments {
    /// When packets leave; default: constant for SRT, mixed for WebRTC
    #[arg(long, value_enum)]
    shape: Option<Shape>,
    /// Packets per second and session, audio excepted; default: 200 for SRT, 100 for WebRTC (video:
    /// 67)
    #[arg(long)]
    rate: Option<f64>,
    /// Packets of one session that leave together in the constant shape
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    burst: u16,
    /// Send what leaves together as one segmented datagram train (UDP_SEGMENT)
    #[arg(long)]
    train: bool,
    /// Bytes of a full packet: payload with SRT, with its RTP header with WebRTC; default: 1316 for
    /// SRT, 1200 for WebRTC
    #[arg(long)]
    size: Option<u16>,
}

impl MediaArguments {
    /// What it means to SRT sessions.
    ///
    /// # Errors
    /// A size or a rate that cannot be.
    pub fn srt(&self) -> anyhow::Result<station::Media> {
        let default = station::Media::default();
        let size = self.size.map_or(default.size, usize::from);
        ensure!(
            (payload::LEN_MIN..=1_456).contains(&size),
            "--size {size} is no payload of SRT: use 48 to 1456 bytes"
        );
        Ok(station::Media {
            rate: self.rate()?.unwrap_or(default.rate),
            burst: self.burst,
            train: self.train,
            size,
            shape: self.shape.unwrap_or(Shape::Constant),
        })
    }

    /// What it means to WebRTC sessions.
    ///
    /// # Errors
    /// A size or a rate that cannot be.
    pub fn webrtc(&self) -> anyhow::Result<webrtc::station::Media> {
        let size = self.size.unwrap_or(Rhythm::BROWSER_VIDEO.packet_size());
        ensure!(
            (webrtc::rtp::PACKET_MIN..=1_472).contains(&size),
            "--size {size} is no RTP packet: use {} to 1472 bytes",
            webrtc::rtp::PACKET_MIN
        );
        let shape = self.shape.unwrap_or(Shape::Mixed);
        Ok(webrtc::station::Media::shaped(shape, self.rate()?, self.burst, size, self.train))
    }

    fn rate(&self) -> anyhow::Result<Option<f64>> {
        ensure!(
            self.rate.is_none_or(|rate| rate.is_finite() && rate >= 0.0),
            "--rate must not be negative"
        );
        Ok(self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: MediaArguments =
        MediaArguments { shape: None, rate: None, burst: 1, train: false, size: None };

    #[test]
    fn without_a_word_srt_is_constant_and_webrtc_is_audio_and_video() {
        assert_eq!(NOTHING.srt().unwrap(), station::Media::default());
        assert_eq!(NOTHING.webrtc().unwrap(), webrtc::station::Media::mixed());
    }

    #[test]
    fn a_size_is_held_to_what_its_protocol_can_carry() {
        let of_size = |size| MediaArguments { size: Some(size), ..NOTHING };
        assert!(of_size(47).srt().is_err() && of_size(1_457).srt().is_err());
        assert!(of_size(48).srt().is_ok() && of_size(48).webrtc().is_err());
        assert!(of_size(1_472).webrtc().is_ok());
    }

    #[test]
    fn a_negative_rate_is_refused() {
        let arguments = MediaArguments { rate: Some(-1.0), ..NOTHING };
        assert!(arguments.srt().is_err() && arguments.webrtc().is_err());
    }
}
