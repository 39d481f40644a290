//! Descriptions of real agents, cases that go wrong elsewhere, and what holds for any text.

use proptest::prelude::*;

use super::samples::*;
use super::*;
use crate::protocol::ice::{Credentials, IcePair, Password, Ufrag};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const PASSWORD: &str = "0123456789012345678901";

fn relay() -> [SocketAddr; 2] {
    ["203.0.113.5:8000".parse().unwrap(), "[2001:db8::5]:8000".parse().unwrap()]
}

/// What the relay writes in each section that gets candidates.
const OWN: &str = "\
a=candidate:1 1 udp 2130706431 203.0.113.5 8000 typ host
a=candidate:2 1 udp 2130706175 2001:db8::5 8000 typ host
a=end-of-candidates
";

fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}

/// `text` without the lines that begin with one of `fronts`.
fn without(text: &str, fronts: &[&str]) -> String {
    let is_kept = |line: &&str| !fronts.iter().any(|front| line.starts_with(front));
    text.split_inclusive('\n').filter(is_kept).collect()
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

fn credentials(ufrag: &str, password: &str) -> Credentials {
    Credentials {
        ufrag: Ufrag::parse(ufrag).unwrap(),
        password: Password::parse(password).unwrap(),
    }
}

fn usernames(offer: &str, answer: &str) -> Result<Vec<String>, SdpError> {
    pairs(offer, answer).map(|pairs| pairs.iter().map(IcePair::username).collect())
}

/// A description of as many sections, each with its own lines.
fn description<const N: usize>(session: &str, sections: [&str; N]) -> String {
    let mut sdp = format!("v=0\no=- 1 1 IN IP4 0.0.0.0\ns=-\nt=0 0\n{session}");
    for section in sections {
        sdp.push_str(&format!("m=video 9 UDP/TLS/RTP/SAVPF 96\nc=IN IP4 0.0.0.0\n{section}"));
    }
    sdp
}

fn ice(ufrag: &str) -> String {
    format!("a=ice-ufrag:{ufrag}\na=ice-pwd:{PASSWORD}\n")
}

const HOST: &str = "a=candidate:7 1 udp 1 10.0.0.1 1000 typ host\n";

mod credentials {
    use super::*;

    #[test]
    fn a_browser_and_srs_agree_on_one_pair() {
        let expected = IcePair {
            origin: super::credentials("w668j549", "7d6j4t0z3v8m2c5x1b9n0a7s4f6g2h8k"),
            client: super::credentials("EbMB", "hT9sXk2VqLwRz4Yc8NpJm1Gd"),
        };
        let pairs = pairs(&crlf(OFFER_OF_CHROMIUM), &crlf(ANSWER_OF_SRS));
        assert_eq!(pairs, Ok(vec![expected]));
    }

    #[test]
    fn values_of_the_session_and_of_the_sections_meet() {
        let table = [
            (OFFER_OF_OBS, ANSWER_OF_MEDIAMTX, "gVqIcPjLxZsNvWtB:xQ7p"),
            (OFFER_OF_FFMPEG, ANSWER_OF_AIORTC, "vK3a:9a3f1c0e"),
            (OFFER_OF_OBS, ANSWER_OF_SRS, "w668j549:xQ7p"),
        ];
        for (offer, answer, username) in table {
            assert_eq!(usernames(offer, answer), Ok(vec![username.to_owned()]));
        }
    }

    #[test]
    fn a_sections_value_counts_before_the_sessions() {
        let offer = description(&ice("session"), ["a=ice-ufrag:media\n", ""]);
        let answer = description(&ice("origin"), ["", ""]);
        let expected = ["origin:media".to_owned(), "origin:session".to_owned()];
        assert_eq!(usernames(&offer, &answer), Ok(expected.to_vec()));
    }

    #[test]
    fn sections_without_a_bundle_have_a_pair_each() {
        let offer = description("", [&ice("cli0"), &ice("cli1")]);
        let answer = description("", [&ice("ori0"), &ice("ori1")]);
        let expected = ["ori0:cli0".to_owned(), "ori1:cli1".to_owned()];
        assert_eq!(usernames(&offer, &answer), Ok(expected.to_vec()));
    }

    #[test]
    fn a_section_of_a_bundle_may_leave_them_to_the_first() {
        let offer = description("", [&format!("a=mid:0\n{}", ice("cli0")), "a=mid:1\n"]);
        let answer = description(
            "a=group:BUNDLE 0 1\n",
            [&format!("a=mid:0\n{}", ice("ori0")), "a=mid:1\n"],
        );
        assert_eq!(usernames(&offer, &answer), Ok(vec!["ori0:cli0".to_owned()]));
    }

    #[test]
    fn a_pair_of_another_section_of_a_bundle_comes_behind_that_of_its_first() {
        let section = |mid: &str, ufrag: &str| format!("a=mid:{mid}\n{}", ice(ufrag));
        let offer = description("", [&section("0", "cli0"), &section("1", "cli1")]);
        let answer =
            description("a=group:BUNDLE 1 0\n", [&section("0", "ori0"), &section("1", "ori1")]);
        let expected = ["ori1:cli1".to_owned(), "ori0:cli0".to_owned()];
        assert_eq!(usernames(&offer, &answer), Ok(expected.to_vec()));
    }

    #[test]
    fn sections_meet_by_name_if_the_answer_left_one_out() {
        let section = |mid: &str, ufrag: &str| format!("a=mid:{mid}\n{}", ice(ufrag));
        let offer = description("", [&section("data", "cli0"), &section("video", "cli1")]);
        let answer = description("", [&section("video", "ori0")]);
        assert_eq!(usernames(&offer, &answer), Ok(vec!["ori0:cli1".to_owned()]));
    }

    #[test]
    fn a_rejected_section_has_no_pair() {
        let offer = description("", [&ice("cli0"), &ice("cli1")]);
        let answer = description("", [&ice("ori0"), &ice("ori1")]);
        let answer = answer.replacen("m=video 9", "m=video 0", 1);
        assert_eq!(usernames(&offer, &answer), Ok(vec!["ori1:cli1".to_owned()]));
    }

    #[test]
    fn a_fifth_transport_is_refused() {
        let sections: [String; 5] = std::array::from_fn(|index| ice(&format!("ufrag{index}")));
        let five = description("", sections.each_ref().map(String::as_str));
        let (last, _) = five.rsplit_once("m=").unwrap();
        assert_eq!(pairs(last, last).map(|pairs| pairs.len()), Ok(4));
        assert_eq!(pairs(&five, &five), Err(SdpError::TooManyPairs { max: 4 }));
    }

    #[test]
    fn more_pairs_in_one_bundle_than_there_is_room_for_do_no_harm() {
        let sections: [String; 6] = std::array::from_fn(|index| {
            format!("a=mid:{index}\n{}", ice(&format!("ufrag{index}")))
        });
        let sdp =
            description("a=group:BUNDLE 0 1 2 3 4 5\n", sections.each_ref().map(String::as_str));
        let usernames = usernames(&sdp, &sdp).unwrap();
        assert_eq!((usernames.len(), usernames[0].as_str()), (4, "ufrag0:ufrag0"));
    }

    #[test]
    fn what_is_missing_or_malformed_is_said() {
        let good = description("", [&ice("good")]);
        let with = |lines: &str| description("", [lines]);
        let missing = |description| Err(SdpError::NoCredentials { description });
        let length = |attribute, length, min| {
            Err(SdpError::Credentials(IceError::Length { attribute, length, min, max: 256 }))
        };
        let character = |attribute| Err(SdpError::Credentials(IceError::Character { attribute }));
        let ambiguous = |attribute| Err(SdpError::Ambiguous { attribute });
        let no_password = with("a=ice-ufrag:abcd\n");
        let short = with("a=ice-ufrag:abc\na=ice-pwd:0123456789012345678901\n");
        let weak = with("a=ice-ufrag:abcd\na=ice-pwd:012345678901234567890\n");
        let quoted = with("a=ice-ufrag:ab\"d\na=ice-pwd:0123456789012345678901\n");
        let twice = with(&format!("{}a=ice-ufrag:other\n", ice("good")));
        let table = [
            (good.as_str(), "", Err(SdpError::NoVersion)),
            ("{\"sdp\":\"v=0\"}", &good, Err(SdpError::NoVersion)),
            (&good, "v=0\n", missing("answer")),
            ("v=0\n", &good, missing("offer")),
            (&good, &no_password, missing("answer")),
            (&no_password, &good, missing("offer")),
            (&good, &short, length("ice-ufrag", 3, 4)),
            (&weak, &good, length("ice-pwd", 21, 22)),
            (&quoted, &good, character("ice-ufrag")),
            (&good, &twice, ambiguous("ice-ufrag")),
        ];
        for (offer, answer, expected) in table {
            assert_eq!(pairs(offer, answer), expected, "{offer} {answer}");
        }
    }

    #[test]
    fn an_answer_with_json_escapes_has_no_lines() {
        let escaped = crlf(ANSWER_OF_SRS).replace("\r\n", "\\u000d\\u000a");
        let missing = SdpError::NoCredentials { description: "answer" };
        assert_eq!(pairs(OFFER_OF_CHROMIUM, &escaped), Err(missing));
    }

    #[test]
    fn a_fragment_tells_the_new_credentials_wherever_they_stand() {
        let expected = super::credentials("ysXw", "vw5LmwG4y/e6dPP/zAP9Gp5k");
        let of_session = "a=ice-ufrag:ysXw\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\nm=audio 9 RTP 0\n";
        let repeated = format!("{RESTART}{}", RESTART.replace("mid:0", "mid:1"));
        for fragment in [RESTART, of_session, &crlf(RESTART), &repeated] {
            assert_eq!(fragment_credentials(fragment), Ok(Some(expected.clone())), "{fragment}");
        }
    }

    #[test]
    fn a_fragment_without_credentials_has_none() {
        for fragment in ["", "a=end-of-candidates\n", &without(RESTART, &["a=ice-u", "a=ice-p"])] {
            assert_eq!(fragment_credentials(fragment), Ok(None), "{fragment}");
        }
    }

    #[test]
    fn half_a_pair_and_two_pairs_in_a_fragment_are_refused() {
        let half = without(RESTART, &["a=ice-pwd"]);
        let missing = SdpError::NoCredentials { description: "fragment" };
        assert_eq!(fragment_credentials(&half), Err(missing));
        let two = format!("{RESTART}{}", RESTART.replace("ysXw", "other"));
        assert_eq!(fragment_credentials(&two), Err(SdpError::TooManyCredentials));
    }
}

mod to_client {
    use super::*;

    #[test]
    fn an_answer_of_srs_names_the_relay_once_and_keeps_every_other_line() {
        let (audio, video) = ANSWER_OF_SRS.split_once("m=video").unwrap();
        let expected = [&without(audio, &["a=candidate"]), OWN, "m=video", video].concat();
        let expected = without(&expected, &["a=candidate:0", "a=candidate:1 1 udp 2130706431 19"]);
        assert_eq!(to_client(&crlf(ANSWER_OF_SRS), &relay()), Ok(crlf(&expected)));
    }

    #[test]
    fn an_answer_of_mediamtx_keeps_both_components() {
        let own = "\
a=candidate:1 1 udp 2130706431 203.0.113.5 8000 typ host
a=candidate:1 2 udp 2130706430 203.0.113.5 8000 typ host
a=candidate:2 1 udp 2130706175 2001:db8::5 8000 typ host
a=candidate:2 2 udp 2130706174 2001:db8::5 8000 typ host
a=end-of-candidates
m=video";
        let expected = without(ANSWER_OF_MEDIAMTX, &["a=candidate", "a=end"]);
        let expected = expected.replace("m=video", own);
        assert_eq!(to_client(&crlf(ANSWER_OF_MEDIAMTX), &relay()), Ok(crlf(&expected)));
    }

    #[test]
    fn real_addresses_of_aiortc_become_the_relays() {
        let expected = without(ANSWER_OF_AIORTC, &["a=candidate", "a=end"])
            .replace("m=video", &format!("{OWN}m=video"))
            .replace("51372", "8000")
            .replace("10.77.9.1", "203.0.113.5");
        assert_eq!(to_client(&crlf(ANSWER_OF_AIORTC), &relay()), Ok(crlf(&expected)));
    }

    #[test]
    fn the_first_candidate_is_the_first_address_in_the_form_that_ffmpeg_reads() {
        let [v4, v6] = relay();
        let output = to_client(ANSWER_OF_SRS, &[v6, v4]).unwrap();
        let first = output.lines().find(|line| line.contains("udp") && line.contains("host"));
        let expected = "a=candidate:1 1 udp 2130706431 2001:db8::5 8000 typ host";
        assert_eq!(first, Some(expected));
        assert_eq!(first_udp_host(&output), Some(v6));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_form_is_written_as_ipv4() {
        let mapped = "[::ffff:203.0.113.5]:8000".parse().unwrap();
        let output = to_client(ANSWER_OF_AIORTC, &[mapped]).unwrap();
        assert_eq!(count(&output, "c=IN IP4 203.0.113.5\r\n"), 2);
        assert_eq!(count(&output, " 203.0.113.5 8000 typ host\r\n"), 1);
    }

    #[test]
    fn line_ends_become_crlf_and_a_missing_last_one_is_added() {
        let expected = to_client(&crlf(ANSWER_OF_SRS), &relay()).unwrap();
        let unended = ANSWER_OF_SRS.trim_end();
        for sdp in [ANSWER_OF_SRS, unended, &crlf(unended), &ANSWER_OF_SRS.replace('\n', "\r")] {
            assert_eq!(to_client(sdp, &relay()).as_ref(), Ok(&expected), "{sdp:?}");
        }
        assert!(expected.ends_with("\r\n") && !expected.contains("\r\n\r\n"));
    }

    #[test]
    fn without_a_bundle_each_section_that_had_candidates_gets_its_own() {
        let sdp = description("", [HOST, "", HOST]) + &ice("origin");
        let output = to_client(&sdp, &relay()).unwrap();
        let sections: Vec<&str> = output.split("m=").collect();
        let own = crlf(OWN);
        let which: Vec<bool> = sections.iter().map(|section| section.contains(&own)).collect();
        assert_eq!(which, [false, true, false, true]);
        assert_eq!(count(&output, "a=candidate"), 4);
    }

    #[test]
    fn a_bundle_has_them_in_its_first_section_that_is_not_rejected() {
        let sections = ["a=mid:a\n", "a=mid:b\n", &format!("a=mid:c\n{HOST}")];
        let sdp = description("a=group:BUNDLE a b c\n", sections);
        let output = to_client(&sdp.replacen("m=video 9", "m=video 0", 1), &relay()).unwrap();
        assert!(output.contains(&crlf(&format!("a=mid:b\n{OWN}m=video"))), "{output}");
        assert!(output.contains("m=video 0 UDP"));
        assert_eq!(count(&output, "a=candidate"), 2);
    }

    #[test]
    fn an_answer_without_candidates_gets_them_if_it_uses_ice() {
        let with_ice = description("", ["", ""]).replacen("m=", &format!("{}m=", ice("orig")), 1);
        let output = to_client(&with_ice, &relay()).unwrap();
        let first_section = output.split("m=").nth(1).unwrap();
        assert!(first_section.contains(&crlf(OWN)), "{output}");
        assert_eq!(count(&output, "a=candidate"), 2);

        let without_ice = description("", ["", ""]);
        assert_eq!(to_client(&without_ice, &relay()), Ok(crlf(&without_ice)));
    }

    #[test]
    fn candidates_of_every_kind_go_wherever_they_stand() {
        let table = [
            "a=candidate:1 1 udp 1 origin.example.com 8000 typ host",
            "a=candidate:1 1 udp 1 5d2c.local 8000 typ host",
            "a=candidate:1 1 tcp 1 10.0.0.1 9 typ host tcptype active",
            "a=candidate:1 1 udp 1 2001:db8::1 8000 typ prflx raddr :: rport 0",
            "a=candidate:1 1 UDP 1 10.0.0.1 8000 typ relay raddr 10.0.0.2 rport 1",
            "a=candidate:",
            "a=candidate",
            "a=Candidate:1 1 udp 1 10.0.0.1 8000 typ host",
            " a = candidate : 1 1 udp 1 10.0.0.1 8000 typ host",
            "a=x\ra=candidate:1 1 udp 1 10.0.0.1 8000 typ host",
            "a=remote-candidates:1 10.0.0.1 8000",
        ];
        for line in table {
            let sdp = description(&format!("{line}\n"), [&format!("{}{line}\n", ice("orig"))]);
            let output = to_client(&sdp, &relay()).unwrap();
            assert!(!output.contains("10.0.0") && !output.contains(".local"), "{output}");
            assert!(output.ends_with(&crlf(OWN)), "{output}");
            assert_eq!(count(&output.to_ascii_lowercase(), "candidate:"), 2, "{output}");
        }
    }

    #[test]
    fn two_hundred_candidates_become_two() {
        let answer = ANSWER_OF_SRS.to_owned() + &HOST.repeat(200);
        let output = to_client(&answer, &relay()).unwrap();
        assert_eq!(Ok(output), to_client(ANSWER_OF_SRS, &relay()));
    }

    #[test]
    fn what_only_looks_like_a_candidate_stays() {
        let lines = "a=candidates:1\na=x-candidate:8001\na=fmtp:96 candidate:1\ni=a=candidate:1\n";
        let output = to_client(&description(lines, [HOST]), &relay()).unwrap();
        assert!(output.contains(&crlf(lines)), "{output}");
    }

    #[test]
    fn numbers_that_equal_the_origins_port_stay() {
        let lines = "a=rtpmap:8001 x/8001\na=ssrc:8001 cname:8001 typ host\nb=AS:8001\n";
        let candidate = "a=candidate:8001 1 udp 8001 10.0.0.1 8001 typ host\n";
        let output = to_client(&description(lines, [candidate]), &relay()).unwrap();
        assert!(output.contains(&crlf(lines)), "{output}");
        assert_eq!(count(&output, "8001"), count(lines, "8001"));
    }

    #[test]
    fn an_end_of_candidates_stays_where_the_relay_writes_none() {
        let sdp = description("", [HOST, "a=end-of-candidates\n"]);
        let output = to_client(&sdp, &relay()).unwrap();
        assert_eq!(count(&output, "a=end-of-candidates\r\n"), 2);
        assert!(output.ends_with("c=IN IP4 0.0.0.0\r\na=end-of-candidates\r\n"), "{output}");
    }

    #[test]
    fn real_default_addresses_change_and_dummies_stay() {
        let table = [
            ("m=audio 5000 RTP 0", "m=audio 8000 RTP 0"),
            ("m=audio 5000/2 RTP 0", "m=audio 8000/2 RTP 0"),
            ("m=audio 9 RTP 0", "m=audio 9 RTP 0"),
            ("m=audio 0 RTP 0", "m=audio 0 RTP 0"),
            ("m=audio 70000 RTP 0", "m=audio 70000 RTP 0"),
            ("m=audio", "m=audio"),
            ("c=IN IP4 10.0.0.1", "c=IN IP4 203.0.113.5"),
            ("c=IN IP4 10.0.0.1/127", "c=IN IP4 203.0.113.5"),
            ("c=IN IP6 fd00::1", "c=IN IP4 203.0.113.5"),
            ("c=IN IP4 origin.example.com", "c=IN IP4 203.0.113.5"),
            ("c=IN IP4 0.0.0.0", "c=IN IP4 0.0.0.0"),
            ("c=IN IP6 ::", "c=IN IP6 ::"),
            ("c=", "c="),
            ("a=rtcp:5001", "a=rtcp:8000"),
            ("a=rtcp:5001 IN IP4 10.0.0.1", "a=rtcp:8000 IN IP4 203.0.113.5"),
            ("a=rtcp:9 IN IP4 0.0.0.0", "a=rtcp:9 IN IP4 0.0.0.0"),
            ("a=rtcp:9", "a=rtcp:9"),
            ("a=rtcp:", "a=rtcp:"),
            ("a=rtcp-mux", "a=rtcp-mux"),
            ("o=- 1 1 IN IP4 10.0.0.1", "o=- 1 1 IN IP4 10.0.0.1"),
        ];
        for (line, expected) in table {
            let sdp = format!("v=0\r\n{line}\r\n");
            assert_eq!(to_client(&sdp, &relay()), Ok(format!("v=0\r\n{expected}\r\n")), "{line}");
        }
    }

    #[test]
    fn a_restarts_fragment_names_the_relay() {
        let expected = without(RESTART, &["a=candidate", "a=end"]) + OWN;
        assert_eq!(fragment_to_client(RESTART, &relay()), Ok(crlf(&expected)));
    }

    #[test]
    fn a_fragment_without_sections_has_them_where_the_origins_stood() {
        let fragment = format!("{}{HOST}", ice("orig"));
        let expected = format!("{}{OWN}", ice("orig"));
        assert_eq!(fragment_to_client(&fragment, &relay()), Ok(crlf(&expected)));
    }

    #[test]
    fn what_cannot_be_rewritten_is_refused() {
        assert_eq!(to_client(ANSWER_OF_SRS, &[]), Err(SdpError::NoAddress));
        assert_eq!(to_client("", &relay()), Err(SdpError::NoVersion));
        assert_eq!(to_client("404 page not found", &relay()), Err(SdpError::NoVersion));
    }
}

mod to_origin {
    use super::*;

    #[test]
    fn offers_lose_their_candidates_and_nothing_else() {
        for offer in [OFFER_OF_CHROMIUM, OFFER_OF_OBS, OFFER_OF_FFMPEG] {
            let expected = without(offer, &["a=candidate", "a=end-of-candidates"]);
            assert_eq!(to_origin(offer), Ok(crlf(&expected)));
        }
    }

    #[test]
    fn a_trickled_fragment_loses_them_too() {
        let expected = without(RESTART, &["a=candidate", "a=end-of-candidates"]);
        assert_eq!(fragment_to_origin(RESTART), Ok(crlf(&expected)));
    }

    #[test]
    fn no_line_end_that_another_parser_knows_hides_a_candidate() {
        for end in ["\u{b}", "\u{c}", "\u{1c}", "\u{1e}", "\u{85}", "\u{2028}", "\u{2029}", "\0"] {
            let offer = format!("v=0\r\na=x{end}a=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n");
            assert_eq!(to_origin(&offer), Err(SdpError::ControlCharacter), "{end:?}");
        }
        let offer = "v=0\r\na=x\ra=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n";
        assert_eq!(to_origin(offer).as_deref(), Ok("v=0\r\na=x\r\n"));
    }
}

#[test]
fn a_body_is_a_description_only_within_bounds() {
    let mut longest = b"v=0\r\ns=".to_vec();
    longest.resize(128 * 1024, b'a');
    let too_long = [longest.as_slice(), b"a"].concat();
    let table: [(&[u8], _); 7] = [
        (b"v=0\r\n", Ok("v=0\r\n")),
        (&longest, Ok(str::from_utf8(&longest).unwrap())),
        (&too_long, Err(SdpError::TooLong { length: 128 * 1024 + 1, max: 128 * 1024 })),
        (b"", Err(SdpError::NoVersion)),
        (b"{}", Err(SdpError::NoVersion)),
        (b"v=0\r\ns=\xff\r\n", Err(SdpError::NotUtf8)),
        (b"v=0\r\ns=\0\r\n", Err(SdpError::ControlCharacter)),
    ];
    for (body, expected) in table {
        assert_eq!(read(body), expected);
    }
    assert_eq!(read_fragment(b"a=mid:0\r\n"), Ok("a=mid:0\r\n"));
}

#[test]
fn an_answer_of_any_length_around_ffmpegs_bound_is_rewritten() {
    for length in [8191, 8192, 8193] {
        let mut answer = description("", [&format!("{}{HOST}a=x:", ice("orig"))]);
        answer.push_str(&"x".repeat(length - answer.len()));
        let output = to_client(&answer, &relay()).unwrap();
        assert!(output.contains(&crlf(OWN)));
    }
}

#[test]
fn the_number_of_sections_is_bounded() {
    let sdp = |sections| format!("v=0\n{}", "m=audio 9 RTP 0\n".repeat(sections));
    assert!(to_origin(&sdp(128)).is_ok_and(|output| count(&output, "m=") == 128));
    assert_eq!(to_origin(&sdp(129)), Err(SdpError::TooManyMedia { max: 128 }));
}

/// Sections and lines as many as there may be, so that whatever is done for each pair of them shows.
#[test]
fn a_description_made_to_cost_time_costs_no_more_than_reading_it_a_few_times() {
    let sections = "m=audio 9 RTP 0\na=mid:x\n".repeat(MEDIA_MAX);
    let lines = "a=x\n".repeat((LENGTH_MAX - sections.len() - 8) / 4);
    let long_session = format!("v=0\n{lines}{sections}");
    let long_section = format!("v=0\n{sections}{lines}");
    for sdp in [&long_session, &long_section] {
        let cost_of_reading = time(|| drop(to_origin(sdp)));
        let cost = time(|| drop((pairs(sdp, sdp), fragment_credentials(sdp))));
        assert!(cost < 30 * cost_of_reading, "{cost:?} and {cost_of_reading:?}");
    }
}

/// The shortest of a few runs: others run on this machine, too.
fn time(run: impl Fn()) -> Duration {
    let one = |_| {
        let begun = Instant::now();
        run();
        begun.elapsed()
    };
    (0..3).map(one).min().unwrap_or_default()
}

#[test]
fn no_error_quotes_the_description() {
    let offer = description("", ["a=ice-ufrag:abcd\na=ice-pwd:secret!secret!secret!secret\n"]);
    let error = pairs(&offer, &offer).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
}

/// Lines that matter, in every order and with every line end.
fn any_description() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("m=audio 9 UDP/TLS/RTP/SAVPF 111".to_owned()),
        "m=video (0|9|5000)(/2)? RTP 96",
        "c=IN IP[46] (0.0.0.0|::|10.0.0.1|fd00::1|a.local)",
        "a=candidate:[0-9a-z]{1,3} [12] (udp|tcp|UDP) [0-9]{1,4} (10.0.0.1|::1|a.local) 9 typ host",
        "( |\t)?a( )?=( )?(candidate|end-of-candidates|remote-candidates)( )?(:.{0,8})?",
        "a=rtcp:(9|5000)( IN IP4 (10.0.0.1|0.0.0.0))?",
        "a=ice-ufrag:[a-z]{3,6}",
        Just(format!("a=ice-pwd:{PASSWORD}")),
        "a=mid:[012]",
        "a=group:BUNDLE( [012]){0,3}",
        "[a-z ]=?.{0,12}",
    ];
    let lines = prop::collection::vec((line, "\r\n|\n|\r|\n\n|\r\r\n"), 0..24);
    lines.prop_map(|lines| {
        let body: String = lines.into_iter().map(|(line, end)| line + &end).collect();
        format!("v=0\n{body}")
    })
}

/// Whether the least strict of parsers would take `line` for one about candidates.
fn is_about_candidates(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    let value = line.trim_start().strip_prefix('a').map(str::trim_start);
    let name = value.and_then(|value| value.strip_prefix('=')).map(|value| value.split(':').next());
    let names = ["candidate", "remote-candidates", "end-of-candidates"];
    name.flatten().is_some_and(|name| names.contains(&name.trim()))
}

proptest! {
    #[test]
    fn a_client_sees_the_relays_candidates_alone(sdp in any_description()) {
        if let Ok(output) = to_client(&sdp, &relay()) {
            let mut candidates = output.lines().filter(|line| {
                is_about_candidates(line) && !line.contains("end-of-candidates")
            });
            prop_assert!(candidates.all(|line| {
                let is_own = |own: &str| line.replacen(" 2 udp ", " 1 udp ", 1).starts_with(own);
                is_own("a=candidate:1 1 udp 21307064") && line.ends_with(" 203.0.113.5 8000 typ host")
                    || is_own("a=candidate:2 1 udp 21307061") && line.ends_with(" 2001:db8::5 8000 typ host")
            }), "{output}");
        }
    }

    #[test]
    fn a_client_gets_every_other_line_in_its_order(sdp in any_description()) {
        if let Ok(output) = to_client(&sdp, &relay()) {
            let others = |text: &str| -> Vec<String> {
                let lines = text.split(['\r', '\n']).filter(|line| !line.is_empty());
                let may_change = |line: &str| line.trim_start().starts_with(['m', 'c'])
                    || line.starts_with("a=rtcp:");
                let shown = |line: &str| if may_change(line) { "?".to_owned() } else { line.to_owned() };
                lines.filter(|line| !is_about_candidates(line)).map(shown).collect()
            };
            prop_assert_eq!(others(&output), others(&sdp));
        }
    }

    #[test]
    fn rewriting_twice_changes_nothing(sdp in any_description()) {
        if let Ok(once) = to_client(&sdp, &relay()) {
            prop_assert_eq!(to_client(&once, &relay()), Ok(once));
        }
        if let Ok(once) = to_origin(&sdp) {
            prop_assert_eq!(to_origin(&once), Ok(once));
        }
    }

    #[test]
    fn an_origin_gets_every_line_that_is_not_about_candidates(sdp in any_description()) {
        if let Ok(output) = to_origin(&sdp) {
            let lines = sdp.split(['\r', '\n']).filter(|line| !line.is_empty());
            let expected: String = lines
                .filter(|line| !is_about_candidates(line))
                .map(|line| format!("{line}\r\n"))
                .collect();
            prop_assert_eq!(output, expected);
        }
    }

    #[test]
    fn rewriting_keeps_the_credentials(offer in any_description(), answer in any_description()) {
        if let (Ok(to_origin), Ok(to_client)) = (to_origin(&offer), to_client(&answer, &relay())) {
            let pairs = pairs(&offer, &answer);
            prop_assert!(pairs.as_ref().is_ok_and(|pairs| pairs.len() <= PAIRS_MAX) || pairs.is_err());
            prop_assert_eq!(super::pairs(&to_origin, &to_client), pairs);
        }
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "\\PC*|[\\x00-\\x7f]*") {
        let text = format!("v=0\n{text}");
        let _ = (pairs(&text, &text), fragment_credentials(&text), first_udp_host(&text));
        prop_assert_eq!(to_client(&text, &relay()).is_ok(), to_origin(&text).is_ok());
        prop_assert_eq!(fragment_to_client(&text, &relay()).is_ok(), read(text.as_bytes()).is_ok());
    }
}
