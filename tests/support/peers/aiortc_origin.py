"""A WHIP and WHEP origin on aiortc: full ICE, DTLS-SRTP, real codecs.

It writes a line `listening on ADDRESS:PORT` to stderr, and one line for each request, each end of a
connection and each track. Players get what the last publisher of their stream sends, decoded and
encoded again. It knows nothing of CORS: browsers can talk to it through a relay that does.
"""

import asyncio
import secrets
import sys
from urllib.parse import parse_qs, urlsplit

from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaBlackhole, MediaRelay

TOKEN = "Bearer secret"


def say(*words):
    print(*words, file=sys.stderr, flush=True)


class Origin:
    def __init__(self):
        self.relay = MediaRelay()
        self.streams = {}
        self.sessions = {}

    def publish(self, connection, stream):
        tracks = self.streams[stream] = {}
        # Something has to read a track, or nothing is decoded.
        sink = MediaBlackhole()

        @connection.on("track")
        def _(track):
            say("track", stream, track.kind)
            tracks[track.kind] = track
            sink.addTrack(self.relay.subscribe(track))

        return sink

    def play(self, connection, stream):
        for track in self.streams.get(stream, {}).values():
            connection.addTrack(self.relay.subscribe(track))

    async def offer(self, request):
        url = urlsplit(request.target)
        query = parse_qs(url.query)
        stream = query["stream"][0] if "stream" in query else url.path.rsplit("/", 2)[-2]
        connection = RTCPeerConnection()
        session = secrets.token_hex(16)
        self.sessions[session] = connection

        @connection.on("connectionstatechange")
        def _():
            say("connection", stream, connection.connectionState)

        sink = None
        if "whip" in url.path:
            sink = self.publish(connection, stream)
        else:
            self.play(connection, stream)
        await connection.setRemoteDescription(RTCSessionDescription(request.body, "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        if sink is not None:
            await sink.start()
        headers = [
            ("Content-Type", "application/sdp"),
            ("Location", f"/session/{session}"),
            ("ETag", f'"{session}"'),
            ("Link", '<stun:stun.example.net>; rel="ice-server"'),
        ]
        return 201, headers, connection.localDescription.sdp

    async def delete(self, session):
        connection = self.sessions.pop(session, None)
        if connection is None:
            return 404, [], ""
        # The answer first: closing waits for the peers' goodbyes.
        asyncio.ensure_future(connection.close())
        return 200, [], ""

    async def respond(self, request):
        if request.headers.get("authorization") != TOKEN:
            return 401, [("WWW-Authenticate", "Bearer")], ""
        if request.method == "POST":
            return await self.offer(request)
        if request.method == "DELETE":
            return await self.delete(request.target.rsplit("/", 1)[-1])
        return 405, [], ""

    async def serve(self, reader, writer):
        try:
            request = await Request.read(reader)
            status, headers, body = await self.respond(request)
            say(request.method, request.target, status)
            body = body.encode()
            lines = [f"HTTP/1.1 {status} Told"]
            lines += [f"{name}: {value}" for name, value in headers]
            lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
            writer.write("\r\n".join(lines).encode() + body)
            await writer.drain()
        finally:
            writer.close()


class Request:
    @classmethod
    async def read(cls, reader):
        self = cls()
        self.method, self.target, _ = (await reader.readline()).decode().split()
        self.headers = {}
        while line := (await reader.readline()).decode().strip():
            name, value = line.split(":", 1)
            self.headers[name.lower()] = value.strip()
        length = int(self.headers.get("content-length", 0))
        self.body = (await reader.readexactly(length)).decode()
        return self


async def main(ip):
    server = await asyncio.start_server(Origin().serve, ip, 0)
    host, port = server.sockets[0].getsockname()[:2]
    say(f"listening on {host}:{port}")
    # The test holds the other end of stdin: whatever becomes of it, this program ends.
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()


asyncio.run(main(sys.argv[1]))
