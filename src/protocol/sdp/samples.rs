//! Descriptions in the shape in which real agents write them, with LF for CRLF. The payload types
//! and header extensions, which do not matter here, are cut down to a few.

/// An SRS origin: ICE-lite, its candidates in every section, none of them real in `c=` and `m=`.
pub(super) const ANSWER_OF_SRS: &str = "\
v=0
o=SRS/7.0.18(Hang) 107512864 2 IN IP4 0.0.0.0
s=SRSPublishSession
t=0 0
a=ice-lite
a=group:BUNDLE 0 1
a=msid-semantic: WMS live/livestream
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=ice-ufrag:w668j549
a=ice-pwd:7d6j4t0z3v8m2c5x1b9n0a7s4f6g2h8k
a=fingerprint:sha-256 0A:1B:2C
a=setup:passive
a=mid:0
a=recvonly
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=candidate:0 1 udp 2130706431 10.77.9.1 8001 typ host generation 0
a=candidate:1 1 udp 2130706431 192.0.2.80 8001 typ host generation 0
m=video 9 UDP/TLS/RTP/SAVPF 106
c=IN IP4 0.0.0.0
a=ice-ufrag:w668j549
a=ice-pwd:7d6j4t0z3v8m2c5x1b9n0a7s4f6g2h8k
a=fingerprint:sha-256 0A:1B:2C
a=setup:passive
a=mid:1
a=recvonly
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:106 H264/90000
a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=candidate:0 1 udp 2130706431 10.77.9.1 8001 typ host generation 0
a=candidate:1 1 udp 2130706431 192.0.2.80 8001 typ host generation 0
";

/// MediaMTX, which is Pion: full ICE, both components, a mark at the end, in the first section.
pub(super) const ANSWER_OF_MEDIAMTX: &str = "\
v=0
o=- 5417183917481941122 1732117505 IN IP4 0.0.0.0
s=-
t=0 0
a=msid-semantic:WMS *
a=fingerprint:sha-256 0A:1B:2C
a=extmap-allow-mixed
a=group:BUNDLE 0 1
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=setup:active
a=mid:0
a=ice-ufrag:gVqIcPjLxZsNvWtB
a=ice-pwd:mLtRkYqXwZbCdFgHjKpQsTvNcMxLzWqR
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=recvonly
a=candidate:1966762134 1 udp 2130706431 10.77.9.1 8189 typ host
a=candidate:1966762134 2 udp 2130706431 10.77.9.1 8189 typ host
a=candidate:4120612044 1 udp 2130706431 fd00::9 8189 typ host
a=candidate:3305839562 1 tcp 1671430143 10.77.9.1 8189 typ host tcptype passive
a=candidate:842163049 1 udp 1694498815 198.51.100.4 8189 typ srflx raddr 10.77.9.1 rport 8189
a=end-of-candidates
m=video 9 UDP/TLS/RTP/SAVPF 106
c=IN IP4 0.0.0.0
a=setup:active
a=mid:1
a=ice-ufrag:gVqIcPjLxZsNvWtB
a=ice-pwd:mLtRkYqXwZbCdFgHjKpQsTvNcMxLzWqR
a=rtcp-mux
a=rtpmap:106 H264/90000
a=recvonly
";

/// aiortc: real addresses in `c=` and `m=`, and every candidate in every section.
pub(super) const ANSWER_OF_AIORTC: &str = "\
v=0
o=- 3941124902 3941124902 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE 0 1
a=msid-semantic:WMS *
m=audio 51372 UDP/TLS/RTP/SAVPF 96
c=IN IP4 10.77.9.1
a=recvonly
a=mid:0
a=rtcp:9 IN IP4 0.0.0.0
a=rtcp-mux
a=rtpmap:96 opus/48000/2
a=candidate:5d3b0f1c 1 udp 2130706431 10.77.9.1 51372 typ host
a=candidate:a8c1e0d4 1 udp 1694498815 198.51.100.4 51372 typ srflx raddr 10.77.9.1 rport 51372
a=end-of-candidates
a=ice-ufrag:vK3a
a=ice-pwd:Yf5nQ2tW8sR1xL6mB0cD7e
a=fingerprint:sha-256 0A:1B:2C
a=setup:active
m=video 51372 UDP/TLS/RTP/SAVPF 97
c=IN IP4 10.77.9.1
a=recvonly
a=mid:1
a=rtcp:9 IN IP4 0.0.0.0
a=rtcp-mux
a=rtpmap:97 VP8/90000
a=candidate:5d3b0f1c 1 udp 2130706431 10.77.9.1 51372 typ host
a=candidate:a8c1e0d4 1 udp 1694498815 198.51.100.4 51372 typ srflx raddr 10.77.9.1 rport 51372
a=end-of-candidates
a=ice-ufrag:vK3a
a=ice-pwd:Yf5nQ2tW8sR1xL6mB0cD7e
a=fingerprint:sha-256 0A:1B:2C
a=setup:active
";

/// A browser's offer after gathering: mDNS, IPv6, TCP and a TURN server.
pub(super) const OFFER_OF_CHROMIUM: &str = "\
v=0
o=- 8412906533182817413 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=extmap-allow-mixed
a=msid-semantic: WMS 5f0e2d7c
m=audio 56143 UDP/TLS/RTP/SAVPF 111 63
c=IN IP4 203.0.113.77
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:2913442112 1 udp 2113937151 1c8b2f4e-7a60-4d4f-9b1e-52f0a6c3d8e7.local 56143 typ host \
generation 0 network-cost 999
a=candidate:1755842341 1 udp 2113939711 2001:db8::7 56144 typ host generation 0 network-id 2
a=candidate:842163049 1 udp 1677729535 203.0.113.77 56143 typ srflx raddr 0.0.0.0 rport 0 \
generation 0 network-cost 999
a=candidate:2157334355 1 tcp 1518214911 192.168.1.7 9 typ host tcptype active generation 0
a=candidate:77612190 1 udp 33562367 198.51.100.99 50012 typ relay raddr 203.0.113.77 rport 56143
a=ice-ufrag:EbMB
a=ice-pwd:hT9sXk2VqLwRz4Yc8NpJm1Gd
a=ice-options:trickle
a=fingerprint:sha-256 0A:1B:2C
a=setup:actpass
a=mid:0
a=sendonly
a=msid:5f0e2d7c 90d1b7a2
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=ssrc:2231627014 cname:candidate:1
m=video 9 UDP/TLS/RTP/SAVPF 106
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:EbMB
a=ice-pwd:hT9sXk2VqLwRz4Yc8NpJm1Gd
a=ice-options:trickle
a=fingerprint:sha-256 0A:1B:2C
a=setup:actpass
a=mid:1
a=sendonly
a=rtcp-mux
a=rtpmap:106 H264/90000
a=ssrc-group:FID 3735928559 1732050807
";

/// FFmpeg: no candidates, and it waits for the origin to begin DTLS.
pub(super) const OFFER_OF_FFMPEG: &str = "\
v=0
o=FFmpeg 4489045141692799359 2 IN IP4 127.0.0.1
s=FFmpegPublishSession
t=0 0
a=group:BUNDLE 0 1
a=extmap-allow-mixed
a=msid-semantic: WMS
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=ice-ufrag:9a3f1c0e
a=ice-pwd:6e1d0c9b8a7f5e4d3c2b1a0f9e8d7c6b
a=fingerprint:sha-256 0A:1B:2C
a=setup:passive
a=mid:0
a=sendonly
a=msid:FFmpeg audio
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=ssrc:1234567 cname:FFmpeg
m=video 9 UDP/TLS/RTP/SAVPF 106
c=IN IP4 0.0.0.0
a=ice-ufrag:9a3f1c0e
a=ice-pwd:6e1d0c9b8a7f5e4d3c2b1a0f9e8d7c6b
a=fingerprint:sha-256 0A:1B:2C
a=setup:passive
a=mid:1
a=sendonly
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:106 H264/90000
";

/// OBS, which is libdatachannel: everything about the transport is the session's.
pub(super) const OFFER_OF_OBS: &str = "\
v=0
o=rtc 2893474817 0 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=group:LS 0 1
a=msid-semantic:WMS *
a=ice-options:ice2,trickle
a=ice-ufrag:xQ7p
a=ice-pwd:Zr8sT4uV0wX6yA2bC9dE1f
a=fingerprint:sha-256 0A:1B:2C
a=setup:actpass
m=audio 40712 UDP/TLS/RTP/SAVPF 111
c=IN IP4 192.168.1.7
a=mid:0
a=sendonly
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=candidate:1 1 UDP 2114977791 192.168.1.7 40712 typ host
a=end-of-candidates
m=video 40712 UDP/TLS/RTP/SAVPF 96
c=IN IP4 192.168.1.7
a=mid:1
a=sendonly
a=rtcp-mux
a=rtpmap:96 H264/90000
";

/// What a browser sends when it restarts ICE.
pub(super) const RESTART: &str = "\
a=ice-options:trickle ice2
a=group:BUNDLE 0 1
m=audio 9 UDP/TLS/RTP/SAVPF 111
a=mid:0
a=ice-ufrag:ysXw
a=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k
a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag ysXw
a=candidate:3471623853 1 udp 2122194687 198.51.100.2 61765 typ host generation 0 ufrag ysXw
a=end-of-candidates
";
