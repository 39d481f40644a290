//! Thousands of sessions, connected and then left alone: what each takes of memory, descriptors and
//! CPU time, and whether all of them stay.

use anyhow::Context as _;

use super::Stage;
use crate::board::Counts;
use crate::clock::{self, SECOND};
use crate::generator::{Generator, GeneratorSettings, Roles};
use crate::report::{duration, grouped};
use crate::result::{Better, Cell, Outcome, name};

/// Connects, holds, measures. Whether all sessions connected and stayed, and no live one lost a
/// packet.
pub(super) fn run(stage: &Stage<'_>, outcome: &mut Outcome) -> anyhow::Result<bool> {
    let arguments = stage.arguments;
    let (sessions, all) = (arguments.sessions, arguments.sessions as u64);
    outcome.note("sessions", sessions);
    outcome.note("connect rate", arguments.connect_rate);
    outcome.note("held for", format!("{:?}", arguments.hold_for));
    if arguments.target.is_none() {
        outcome.note("descriptor limit", arguments.descriptors);
    }
    let scene = stage.open()?;
    let relay = scene.account.as_ref().context("the relay's process is not known")?;
    let (memory_before, descriptors_before) = (relay.resident()?, relay.descriptors()?);
    let settings = GeneratorSettings {
        roles: Roles::Publish,
        connect_rate: arguments.connect_rate,
        stream_prefix: "live/idle".to_owned(),
        seed: 7,
        ..GeneratorSettings::new(scene.target, sessions)
    };
    let started = clock::now();
    let idle =
        Generator::start(settings, stage.place.tool.clone(), false).context("start the callers")?;
    let is_settled = |c: &Counts| c.connected + c.refused + c.timed_out >= all;
    let ramp = std::time::Duration::from_secs_f64(sessions as f64 / arguments.connect_rate);
    idle.wait_for(ramp + super::PATIENCE, is_settled);
    let connected_s = clock::now().saturating_sub(started) as f64 / SECOND as f64;
    let connected = idle.counts();
    let (memory, descriptors) = (relay.resident()?, relay.descriptors()?);
    println!(
        "{} of {} sessions connected in {connected_s:.2} s; {} refused (last with {}), {} unanswered",
        grouped(connected.connected),
        grouped(all),
        connected.refused,
        connected.refusal,
        connected.timed_out
    );
    let (cpu_before, held_from) = (relay.shard_cpu()?, clock::now());
    clock::pause(arguments.hold_for);
    let cpu = relay.shard_cpu()?.since(&cpu_before);
    let held_s = clock::now().saturating_sub(held_from) as f64 / SECOND as f64;
    let (held, memory_held) = (idle.published(), relay.resident()?);
    let own_drops = idle.receive_drops() + scene.origin.receive_drops();
    let void = (own_drops > 0).then(|| format!("own queues dropped {own_drops} datagrams"));
    if let Some(why) = &void {
        println!("VOID: {why}");
    }
    let at_origin = scene.origin.counts().open;
    let live = scene.live.as_ref().map(|live| {
        let pair = crate::pair::Pair { origin: scene.origin.worker(), clients: live };
        pair.send_media(false);
        pair.settle(crate::pair::Totals::default(), super::PATIENCE);
        (pair.totals().sent, pair.totals().lost())
    });
    let (live_sent, live_lost) = live.unwrap_or_default();
    let per_session =
        |bytes: u64| bytes.saturating_sub(memory_before) as f64 / connected.connected.max(1) as f64;
    println!(
        "{} open after {held_s:.0} s, {} at the origin; {} closed by the relay or silent",
        grouped(held.counts.open),
        grouped(at_origin),
        held.counts.closed_by_peer
    );
    println!(
        "{} descriptors ({} before); {:.0} B resident per session, {:.0} B at the end",
        grouped(descriptors as u64),
        descriptors_before,
        per_session(memory),
        per_session(memory_held)
    );
    println!(
        "setup p50 {}, p99 {}; shard {:.1} % of a core while idle; live sessions lost {} of {}",
        duration(held.setup.value_at_quantile(0.5)),
        duration(held.setup.value_at_quantile(0.99)),
        cpu.cpu_ns as f64 / (held_s * SECOND as f64) * 100.0,
        live_lost,
        grouped(live_sent)
    );
    let shape = format!("{} idle sessions", grouped(all));
    let subject = scene.relay.as_ref().map_or("running", |relay| relay.engine());
    let mut cell = Cell::new(shape, subject);
    let mut add = |name, unit, better, value| cell.add(name, unit, better, vec![value]);
    add(name::MEMORY_PER_SESSION, "B", Better::Lower, per_session(memory_held));
    add("descriptors", "", Better::Lower, descriptors as f64);
    add("sessions", "", Better::Higher, held.counts.open as f64);
    let rate = connected.connected as f64 / connected_s;
    add(name::CONNECTS_PER_SECOND, "1/s", Better::Higher, rate);
    add("setup_p50", "ns", Better::Lower, held.setup.value_at_quantile(0.5) as f64);
    add("setup_p99", "ns", Better::Lower, held.setup.value_at_quantile(0.99) as f64);
    let percent = cpu.cpu_ns as f64 / (held_s * SECOND as f64) * 100.0;
    add(name::CPU_PERCENT, "%", Better::Lower, percent);
    add(name::LOST, "", Better::Lower, live_lost as f64);
    let is_sound = void.is_none();
    cell.void = void;
    outcome.cells.push(cell);
    let Counts { open, closed_by_peer, .. } = held.counts;
    Ok(is_sound && open == all && closed_by_peer == 0 && live_lost == 0)
}
