//! Who may register an origin at a running relay, and with what.

use std::net::SocketAddr;

use crate::support::http::{Reply, get, request};
use crate::support::network::{FAR, NEAR, Network};
use crate::support::process::{Program, Ringway, address_after, ringway};

#[test]
fn with_a_register_token_only_those_who_have_it_register() {
    let mut relay = Ringway::start(&["--register-token", "hunter2"]);
    assert_eq!(register(relay.system, "127.0.0.1", &[]).status, 401);
    let wrong = [("Authorization", "Bearer hunter3")];
    assert_eq!(register(relay.system, "127.0.0.1", &wrong).status, 401);
    assert_eq!(origins(relay.system), 0);
    let right = [("Authorization", "Bearer hunter2")];
    let reply = register(relay.system, "127.0.0.1", &right);
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(origins(relay.system), 1);
    let said = relay.program.said();
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn another_host_may_announce_its_own_address_and_no_loopback_address() {
    Network::run(|network| {
        let mut command = ringway();
        // All addresses, so that this host asks over loopback and the far one over the cable.
        command.args(["--system-listen", "0.0.0.0:0", "--srt-listen", "127.0.0.1:0"]);
        command.args(["--http-listen", "off"]);
        let mut program = Program::start(command);
        let line = program.wait_for("system API on ");
        let port = address_after(&line, "system API on ").port();
        let (near, far) = (SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::new(NEAR, port));
        for loopback in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let reply = network.on_far(|| register(far, loopback, &[]));
            assert_eq!(reply.status, 400, "{loopback}: {}", reply.body);
            assert!(reply.body.contains("loopback"), "{loopback}: {}", reply.body);
        }
        assert_eq!(origins(near), 0);
        let reply = network.on_far(|| register(far, &FAR.to_string(), &[]));
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert_eq!(origins(near), 1);
        // The list is for operators: without a token, for those on this host.
        let reply = network.on_far(|| get(far, "/api/v1/origins")).unwrap();
        assert_eq!(reply.status, 403, "{}", reply.body);
    });
}

fn register(relay: SocketAddr, ip: &str, headers: &[(&str, &str)]) -> Reply {
    let body = format!(
        "{{\"ip\":\"{ip}\",\"server\":\"vid-1\",\"service\":\"1\",\"pid\":\"1\",\
         \"rtmp\":[\"1935\"],\"srt\":[\"10080\"]}}"
    );
    request(relay, "POST", "/api/v1/srs/register", headers, &body).unwrap()
}

fn origins(relay: SocketAddr) -> usize {
    let list = get(relay, "/api/v1/origins").unwrap().json();
    list["origins"].as_array().unwrap().len()
}
