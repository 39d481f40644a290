//! What may register, and what is refused with which words.

use super::*;
use proptest::prelude::*;
use serde_json::json;

const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 9, 2));
const AS_SRS_POSTS_IT: &[u8] = br#"{"device_id":"origin1","ip":"10.77.9.1","server":"vid-494121g","service":"33z81803","pid":"17907","rtmp":["19351"],"http":["8081"],"api":["19851"],"srt":["udp://0.0.0.0:10081"],"rtc":["udp://0.0.0.0:8001"]}"#;

fn body() -> Value {
    json!({"ip": "10.0.0.5", "server": "s", "service": "v", "pid": "7", "rtmp": ["1935"]})
}

fn parse(body: &Value) -> Result<Registration, RegistrationError> {
    parse_from(body, FAR)
}

fn parse_from(body: &Value, peer: IpAddr) -> Result<Registration, RegistrationError> {
    Registration::parse(body.to_string().as_bytes(), peer, &allowed_networks(&[]))
}

fn with(member: &str, value: Value) -> Value {
    let mut body = body();
    body[member] = value;
    body
}

fn endpoint(scheme: Option<Scheme>, port: u16) -> Option<Endpoint> {
    Some(Endpoint { scheme, port: NonZeroU16::new(port).unwrap() })
}

#[test]
fn the_body_that_srs_posts_is_read() {
    let registration = Registration::parse(AS_SRS_POSTS_IT, FAR, &allowed_networks(&[])).unwrap();
    assert_eq!(registration.ip, IpAddr::from([10, 77, 9, 1]));
    assert_eq!(registration.server, "vid-494121g");
    assert_eq!(registration.service, "33z81803");
    assert_eq!(registration.pid, "17907");
    assert_eq!(registration.device_id.as_deref(), Some("origin1"));
    assert_eq!(registration.endpoints.srt_port(), Some(10081));
}

#[test]
fn unknown_members_are_ignored() {
    let body = with("summaries", json!({"data": {"self": {"mem_kbyte": 1}}}));
    assert_eq!(parse(&body).unwrap().server, "s");
}

#[test]
fn optional_lists_may_be_absent_null_or_empty() {
    for value in [Value::Null, json!([])] {
        assert_eq!(parse(&with("srt", value)).unwrap().endpoints.srt_port(), None);
    }
}

#[test]
fn media_over_udp_is_taken_where_udp_is_whatever_stands_first() {
    for (list, port) in [
        (json!(["tcp://0.0.0.0:8000", "udp://0.0.0.0:8001"]), Some(8001)),
        (json!(["udp://8000", "tcp://8001"]), Some(8000)),
        (json!(["8000"]), Some(8000)),
        (json!(["tcp://8000"]), None),
        (json!([]), None),
    ] {
        assert_eq!(parse(&with("rtc", list)).unwrap().endpoints.rtc_port(), port);
    }
}

#[test]
fn an_api_is_asked_where_it_needs_no_tls() {
    let list = json!(["https://1990", "udp://1", "http://0.0.0.0:1985"]);
    assert_eq!(parse(&with("api", list)).unwrap().endpoints.api_port(), Some(1985));
}

#[test]
fn every_endpoint_form_of_every_srs_version_is_read() {
    let udp = Some(Scheme::Udp);
    let table = [
        ("1935", endpoint(None, 1935)),
        (":1935", endpoint(None, 1935)),
        ("127.0.0.1:19851", endpoint(None, 19851)),
        ("[::1]:19851", endpoint(None, 19851)),
        ("udp://10080", endpoint(udp, 10080)),
        ("udp://:10080", endpoint(udp, 10080)),
        ("udp://0.0.0.0:10080", endpoint(udp, 10080)),
        ("UDP://0.0.0.0:10080", endpoint(udp, 10080)),
        ("tcp://[::]:8000", endpoint(Some(Scheme::Tcp), 8000)),
        ("udp:0.0.0.0:8000", endpoint(udp, 8000)),
        ("https://443", endpoint(Some(Scheme::Https), 443)),
        ("srt://:1", endpoint(Some(Scheme::Srt), 1)),
        ("65535", endpoint(None, 65535)),
    ];
    for (text, expected) in table {
        assert_eq!(Endpoint::parse(text), expected, "{text}");
    }
}

#[test]
fn anything_else_is_no_endpoint() {
    let table = [
        "",
        "0",
        "65536",
        "70000",
        "-1",
        "+80",
        " 80",
        "80 ",
        "x",
        "1935/",
        "ftp://21",
        "udp://",
        "udp://:",
        "udp://host:10080",
        "host:1935",
        "::1:1935",
        "[::1]1935",
        "[::1",
        "udp:10080",
        "1.2.3.4",
        "udp://1.2.3.4:0",
        "://80",
        "http://1.2.3.4:80/x",
    ];
    for text in table {
        assert_eq!(Endpoint::parse(text), None, "{text}");
    }
}

#[test]
fn an_srt_endpoint_on_tcp_is_passed_over() {
    let body = with("srt", json!(["tcp://0.0.0.0:8000", "udp://0.0.0.0:8001"]));
    assert_eq!(parse(&body).unwrap().endpoints.srt_port(), Some(8001));
}

#[test]
fn each_mandatory_member_is_missed_by_name() {
    for member in ["ip", "server", "service", "pid"] {
        for value in [Value::Null, json!("")] {
            let error = parse(&with(member, value)).unwrap_err();
            assert_eq!(error, RegistrationError::Missing { member });
        }
    }
    assert_eq!(parse(&with("rtmp", json!([]))), Err(RegistrationError::NoRtmp));
}

#[test]
fn a_member_of_the_wrong_type_is_named_with_its_value() {
    let error = parse(&with("pid", json!(17907))).unwrap_err();
    assert_eq!(error.to_string(), "`pid` is 17907: send a string");
    let error = parse(&with("srt", json!("10080"))).unwrap_err();
    assert_eq!(error.to_string(), "`srt` is \"10080\": send an array of strings");
    let error = parse(&with("srt", json!([10080]))).unwrap_err();
    assert!(matches!(error, RegistrationError::Endpoint { member: "srt", .. }));
}

#[test]
fn a_port_above_65535_is_refused_rather_than_cut() {
    let error = parse(&with("srt", json!(["udp://0.0.0.0:70000"]))).unwrap_err();
    let expected =
        RegistrationError::Endpoint { member: "srt", value: "\"udp://0.0.0.0:70000\"".to_owned() };
    assert_eq!(error, expected);
}

#[test]
fn a_seventeenth_endpoint_is_refused() {
    let sixteen = json!(vec!["1"; ENDPOINTS_MAX]);
    assert_eq!(parse(&with("rtc", sixteen)).unwrap().endpoints.rtc.len(), ENDPOINTS_MAX);
    let error = parse(&with("rtc", json!(vec!["1"; ENDPOINTS_MAX + 1]))).unwrap_err();
    assert_eq!(error, RegistrationError::TooManyEndpoints { member: "rtc", count: 17 });
}

#[test]
fn strings_are_bounded_and_printable() {
    let error = parse(&with("server", json!("x".repeat(TEXT_MAX + 1)))).unwrap_err();
    assert_eq!(error, RegistrationError::TooLong { member: "server", length: 129 });
    let error = parse(&with("device_id", json!("a\nb"))).unwrap_err();
    assert!(matches!(error, RegistrationError::ControlCharacter { member: "device_id", .. }));
}

#[test]
fn a_long_value_is_cut_in_the_error() {
    let error = parse(&with("ip", json!("x".repeat(100)))).unwrap_err().to_string();
    assert!(error.contains("xxx..."), "{error}");
    assert!(error.len() < 200, "{error}");
}

#[test]
fn an_address_that_no_origin_can_have_is_refused_even_when_its_network_is_allowed() {
    let everything: [IpNet; 2] = ["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
    let table = [
        "0.0.0.0",
        "::",
        "255.255.255.255",
        "224.0.0.1",
        "239.1.2.3",
        "ff02::1",
        "169.254.1.1",
        "169.254.169.254",
        "fe80::1",
        "::ffff:0.0.0.0",
        "::ffff:169.254.169.254",
        "::ffff:224.0.0.1",
        "::ffff:255.255.255.255",
    ];
    for ip in table {
        let body = with("ip", json!(ip)).to_string();
        let error = Registration::parse(body.as_bytes(), NEAR, &everything).unwrap_err();
        assert!(matches!(error, RegistrationError::Unusable { .. }), "{ip}: {error}");
    }
}

#[test]
fn an_ipv4_mapped_address_is_the_address_inside_it() {
    let registration = parse(&with("ip", json!("::ffff:10.0.0.5"))).unwrap();
    assert_eq!(registration.ip, IpAddr::from([10, 0, 0, 5]));
}

#[test]
fn a_loopback_address_may_be_announced_from_this_host_only() {
    for ip in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        let body = with("ip", json!(ip));
        assert!(parse_from(&body, NEAR).unwrap().ip.is_loopback());
        let error = parse_from(&body, FAR).unwrap_err();
        assert!(matches!(error, RegistrationError::LoopbackFromAfar { .. }), "{ip}");
    }
}

#[test]
fn a_public_address_needs_to_be_allowed() {
    let body = with("ip", json!("203.0.113.7"));
    let ip = IpAddr::from([203, 0, 113, 7]);
    assert_eq!(parse(&body), Err(RegistrationError::NotAllowed { ip }));
    let allowed = ["203.0.113.0/24".parse().unwrap()];
    let parsed = Registration::parse(body.to_string().as_bytes(), FAR, &allowed).unwrap();
    assert_eq!(parsed.ip, ip);
}

#[test]
fn a_host_name_is_no_address() {
    for value in ["origin.example", "localhost", "10.0.0", "10.0.0.5:1935", "fe80::1%eth0"] {
        let error = parse(&with("ip", json!(value))).unwrap_err();
        assert!(matches!(error, RegistrationError::NotAnAddress { .. }), "{value}");
    }
}

#[test]
fn a_body_that_is_no_object_is_refused() {
    for body in [&b""[..], b"[]", b"{", b"null", b"\xff", b"[[[[[[[[[["] {
        let error = Registration::parse(body, NEAR, &[]).unwrap_err();
        assert!(matches!(error, RegistrationError::NotAnObject { .. }), "{body:?}");
    }
}

proptest! {
    #[test]
    fn an_endpoint_survives_being_written_and_read(port in 1_u16.., scheme in 0_usize..6) {
        let schemes =
            [None, Some(Scheme::Udp), Some(Scheme::Tcp), Some(Scheme::Http),
             Some(Scheme::Https), Some(Scheme::Srt)];
        let written = endpoint(schemes[scheme], port).unwrap();
        prop_assert_eq!(Endpoint::parse(&written.to_string()), Some(written));
    }

    #[test]
    fn no_body_makes_the_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Registration::parse(&body, NEAR, &[]);
    }

    #[test]
    fn no_text_makes_the_endpoint_parser_panic(text in "\\PC{0,40}") {
        let _ = Endpoint::parse(&text);
    }
}
