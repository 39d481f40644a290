//! The process among its surroundings: kernels and containers that refuse things, configurations that cannot be had.

use crate::support::caller::{Caller, Origin};
use crate::support::process::{Program, Ringway, address_after, ringway};
use crate::support::seccomp;

#[test]
fn where_io_uring_is_refused_the_relay_says_so_and_relays_without_it() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let origin = Origin::start();
        let mut command = ringway();
        seccomp::refuse_io_uring(&mut command, errno);
        let mut relay = Ringway::start_as(command, &["--origin", &origin.flag("a")]);
        let caller = Caller::connect(relay.srt, 7, "#!::r=live/cam,m=publish");
        caller.send(1, b"without a ring");
        let mut buffer = [0; 2048];
        assert_eq!(caller.socket.recv(&mut buffer).unwrap(), 16 + 14);
        let said = relay.program.said();
        let line = said.lines().find(|line| line.contains("engine mmsg")).unwrap();
        assert!(line.contains("seccomp"), "the reason in one line: {line}");
    }
}

#[test]
fn a_forced_engine_that_cannot_run_ends_the_start_with_the_remedy() {
    for engine in ["uring", "tokio-uring"] {
        let mut command = ringway();
        command.args([
            "--engine",
            engine,
            "--system-listen",
            "127.0.0.1:0",
            "--srt-listen",
            "127.0.0.1:0",
        ]);
        seccomp::refuse_io_uring(&mut command, libc::EPERM);
        let mut program = Program::start(command);
        let (code, _) = program.wait();
        let said = program.said();
        assert_eq!(code, Some(2), "{engine}: {said}");
        assert!(said.contains("--engine mmsg"), "{engine}: {said}");
    }
}

#[test]
fn a_bad_value_ends_the_start_with_code_2_and_names_flag_and_value() {
    for (arguments, words) in [
        (["--srt-listen", "70000"], ["--srt-listen", "70000"]),
        (["--engine", "fast"], ["--engine", "fast"]),
        (["--srt-idle-timeout", "soon"], ["--srt-idle-timeout", "soon"]),
        (["--origin", "name=a"], ["--origin", "ip"]),
        (["--origin", "ip=10.0.0.5,path=/{name}"], ["--origin", "{name}"]),
        (["--public-address", "0.0.0.0"], ["--public-address", "0.0.0.0"]),
        (["--webrtc-listen", "20080"], ["--webrtc-listen is 20080", "cannot share a UDP port"]),
        (["--tls-cert", "cert.pem"], ["--tls-cert", "--tls-key"]),
        (["--sessions-max", "4000000000"], ["--sessions-max", "4000000000"]),
    ] {
        let mut command = ringway();
        command.args(arguments);
        let mut program = Program::start(command);
        let (code, _) = program.wait();
        let said = program.said();
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
    }
}

#[test]
fn a_relay_may_listen_for_webrtc_alone_and_says_what_clients_are_told() {
    let mut command = ringway();
    command.args(["--srt-listen", "off", "--webrtc-listen", "127.0.0.1:0"]);
    command.args(["--system-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    command.args(["--public-address", "198.51.100.7,[2001:db8::7]:443"]);
    let mut program = Program::start(command);
    let line = program.wait_for("WebRTC on ");
    let webrtc = address_after(&line, "WebRTC on ");
    let told = format!("clients are told 198.51.100.7:{}, [2001:db8::7]:443", webrtc.port());
    assert!(line.ends_with(&told), "{line}");
    assert!(program.said().contains("SRT on off"));
}

#[test]
fn candidates_that_only_this_host_can_reach_are_said_at_start() {
    for (public, is_said) in [("127.0.0.1", true), ("198.51.100.7", false)] {
        let mut relay = Ringway::start(&[
            "--webrtc-listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
            "--public-address",
            public,
        ]);
        let said = relay.program.said();
        assert_eq!(said.contains("set --public-address"), is_said, "{said}");
    }
}

#[test]
fn the_listeners_of_both_protocols_can_be_steered_by_cpu() {
    let origin = Origin::start();
    let flag = origin.flag("a");
    let mut relay =
        Ringway::start(&["--steer", "cpu", "--webrtc-listen", "127.0.0.1:0", "--origin", &flag]);
    let said = relay.program.said();
    let line = said.lines().find(|line| line.contains("WebRTC on ")).unwrap();
    assert_ne!(address_after(line, "WebRTC on "), relay.srt);
    let _caller = Caller::connect(relay.srt, 7, "#!::r=live/cam,m=publish");
    relay.wait_for_sessions(1);
}

#[test]
fn shards_and_control_run_on_the_cpus_that_they_are_given() {
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let numbers: Vec<&str> = own.split(['-', ',']).collect();
    let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
    let relay = Ringway::start(&["--cpus", first, "--control-cpu", last]);
    let tasks = std::fs::read_dir(format!("/proc/{}/task", relay.program.id())).unwrap();
    let mut cpus = std::collections::BTreeMap::new();
    for task in tasks {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let value = |name| {
            let line = status.lines().find_map(|line: &str| line.strip_prefix(name)).unwrap();
            line.trim().to_owned()
        };
        cpus.insert(value("Name:"), value("Cpus_allowed_list:"));
    }
    assert_eq!(cpus.get("shard-0").map(String::as_str), Some(first), "{cpus:?}");
    assert_eq!(cpus.get("control").map(String::as_str), Some(last), "{cpus:?}");
}

#[test]
fn a_port_that_is_taken_ends_the_start_with_code_1_and_names_the_address() {
    let first = Ringway::start(&[]);
    let mut command = ringway();
    let taken = first.srt.to_string();
    command.args([
        "--srt-listen",
        &taken,
        "--system-listen",
        "127.0.0.1:0",
        "--http-listen",
        "off",
        "--webrtc-listen",
        "off",
    ]);
    let mut second = Program::start(command);
    let (code, _) = second.wait();
    let said = second.said();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&taken), "{said}");
}

#[test]
fn the_go_proxys_variables_work_unmodified_and_what_has_no_effect_is_named() {
    let origin = Origin::start();
    let mut command = ringway();
    command.envs([
        ("PROXY_SYSTEM_API", "127.0.0.1:0"),
        ("PROXY_HTTP_API", "127.0.0.1:0"),
        ("PROXY_SRT_SERVER", "127.0.0.1:0"),
        ("PROXY_WEBRTC_SERVER", "127.0.0.1:0"),
        ("PROXY_RTMP_SERVER", "11935"),
        ("PROXY_STATIC_FILES", "../trunk/research"),
        ("PROXY_LOAD_BALANCER_TYPE", "memory"),
        ("PROXY_DEFAULT_BACKEND_ENABLED", "on"),
        ("PROXY_DEFAULT_BACKEND_RTMP", "1935"),
        ("PROXY_DEFAULT_BACKEND_SRT", &origin.address.port().to_string()),
    ]);
    let mut program = Program::start(command);
    let srt = address_after(&program.wait_for("SRT on "), "SRT on ");
    let _caller = Caller::connect(srt, 7, "#!::r=live/cam,m=publish");
    let line = program.wait_for("session started");
    assert!(line.contains("default"), "{line}");
    let said = program.said();
    assert!(said.contains("PROXY_RTMP_SERVER") && said.contains("PROXY_STATIC_FILES"), "{said}");
}

#[test]
fn the_successor_of_a_killed_relay_gets_its_port_though_the_ring_gives_sockets_back_late() {
    let first = Ringway::start(&["--engine", "uring"]);
    let address = first.srt.to_string();
    drop(first);
    let second = Ringway::listening(&address, &[]);
    assert_eq!(second.srt.to_string(), address);
}
