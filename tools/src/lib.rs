//! Clients, an origin emulator and measurements for the Ringway relay.
//!
//! From the inside out: [`srt`] makes packets and [`payload`] marks and judges what they carry;
//! [`link`] is one end of an SRT connection without I/O; [`batch`] moves datagrams, [`station`] drives
//! many links over it and [`worker`] gives it a thread. What leaves when, and how many sessions there
//! are at the time, is [`shape`]'s and [`pace`]'s to say; [`impair`] makes a bad network of it. On top
//! of these stand [`generator`] (many callers), [`origin`] (a listener), [`pair`] (both) and [`client`]
//! (one blocking caller for tests). [`webrtc`] has both ends of the other protocol, built on the same
//! parts. [`commands`] offers them by address, [`course`] and [`hdr`] keep what they did in each
//! second, and [`proof`] sets them against a null reflector, so that a figure is the relay's.
//!
//! [`subject`] is the relay that [`demo`] shows and that is measured, with [`baseline`] and [`nginx`]
//! to compare with. [`run`] measures SRT saturated, by stopping the relay ([`gate`]) and letting it
//! drain what [`rig`] has queued; [`steady`] and [`overload`] at a fixed rate, in turns that
//! [`contest`] judges and with [`lane`] at both ends; [`paced`] measures WebRTC. [`connects`] and
//! [`whip`] measure set-up, and [`seek`] finds the highest rate that holds, with a [`relay_process`]
//! of Ringway as an operator starts it.
//!
//! What all of them find is an [`Outcome`](result::Outcome) of [`result`], with what [`measure`] says
//! of CPU time and of this machine. [`compare`] reads two of them, [`page`] draws any number with
//! [`plot`].
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::expect_used,
        reason = "a test may fail loudly"
    )
)]

pub mod account;
mod arrivals;
pub mod baseline;
pub mod batch;
pub mod board;
pub mod client;
pub mod clock;
pub mod commands;
pub mod compare;
pub mod connects;
pub mod contest;
pub mod course;
pub mod demo;
mod egress;
pub mod gate;
pub mod generator;
pub mod hdr;
pub mod http;
pub mod http_server;
pub mod impair;
pub mod lane;
pub mod link;
pub mod measure;
pub mod nginx;
pub mod origin;
pub mod overload;
pub mod pace;
pub mod paced;
pub mod page;
pub mod pair;
pub mod payload;
pub mod place;
pub mod plot;
pub mod progress;
pub mod proof;
pub mod registration;
pub mod relay_process;
pub mod report;
pub mod result;
pub mod rig;
pub mod run;
pub mod seek;
pub mod shape;
pub mod sockets;
pub mod srt;
pub mod station;
pub mod steady;
pub mod subject;
pub mod webrtc;
pub mod whip;
pub mod worker;
