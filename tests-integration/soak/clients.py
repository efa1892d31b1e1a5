"""Clients that check every byte. They know nothing of our packages: asyncio's streams, and `websockets`."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any

import websockets
from content import piece
from ledger import Ledger, Refused, WrongBytes
from websockets.asyncio.client import ClientConnection, connect

PATIENCE = 40.0
LOSSY = "lossy network"
Opener = Callable[[], Awaitable[socket.socket]]


class Gate:
    """Open while clients may ask; closed they finish what they have begun and hang up."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self.busy = 0
        self.over = False

    def open(self) -> None:
        """Let clients ask."""
        self._open.set()

    async def close(self) -> None:
        """Wait until nobody asks any more."""
        self._open.clear()
        while self.busy:
            await asyncio.sleep(0.02)

    @property
    def is_open(self) -> bool:
        """Whether clients may ask."""
        return self._open.is_set()

    async def wait(self) -> None:
        """Wait until clients may ask."""
        await self._open.wait()


class Site:
    """Where the service is, and how to get there."""

    def __init__(self, plain: tuple[str, int], secure: tuple[str, int], trust: ssl.SSLContext) -> None:
        self.plain = plain
        self.secure = secure
        self.trust = trust

    async def open(self, tls: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect."""
        options: dict[str, Any] = {"ssl": self.trust, "server_hostname": "localhost"} if tls else {}
        return await asyncio.open_connection(*(self.secure if tls else self.plain), limit=1 << 20, **options)


class Http:
    """One connection of a client: requests, and answers with their worker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.worker = ""
        self.last = False

    def ask(self, method: str, target: str, body: bytes | None = None, chunk: int = 0) -> None:
        """Send a request; a body in chunks if they have a length."""
        head = f"{method} {target} HTTP/1.1\r\nHost: soak\r\n"
        if body is None:
            self.writer.write(f"{head}\r\n".encode())
        elif not chunk:
            self.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        else:
            parts = [body[at : at + chunk] for at in range(0, len(body), chunk)]
            framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
            self.writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + framed + b"0\r\n\r\n")

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        start, *lines = head[:-4].split("\r\n")
        if not start.startswith("HTTP/1.1 "):
            raise WrongBytes(f"expected a status line, got {start[:40]!r}")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.worker = fields.get("x-worker", self.worker)
        self.last = fields.get("connection", "").lower() == "close"
        if fields.get("transfer-encoding") == "chunked":
            return int(start[9:12]), await self.chunks()
        return int(start[9:12]), await self.reader.readexactly(int(fields["content-length"]))

    async def chunks(self) -> bytes:
        """A body in chunks."""
        parts = []
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            parts.append(await self.reader.readexactly(size))
            if await self.reader.readexactly(2) != b"\r\n":
                raise WrongBytes("a chunk is longer than it says")
        if await self.reader.readexactly(2) != b"\r\n":
            raise WrongBytes("there are trailers")
        return b"".join(parts)

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (OSError, ssl.SSLError):
            pass  # the other side was quicker

    def reset(self) -> None:
        """End it as a machine does that has forgotten the connection."""
        if not self.writer.is_closing():
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def check(expected: bytes, status: int, got: bytes) -> None:
    """Compare every byte."""
    if status >= 500:
        raise Refused(f"status {status}")
    if status != 200:
        raise WrongBytes(f"status {status} where 200 was expected")
    if got != expected:
        at = next(
            (i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), min(len(expected), len(got))
        )
        raise WrongBytes(f"{len(expected)} bytes were expected and {len(got)} came; they differ from byte {at} on")


class Crowd:
    """All clients.

    Args:
        site: Where they go.
        ledger: Where they write what came.
        seed: Of their choices.
        far: The same service by way of a network that loses packets; ``None`` if there is none.
    """

    def __init__(self, site: Site, ledger: Ledger, gate: Gate, seed: int, far: Opener | None) -> None:
        self.site = site
        self.ledger = ledger
        self.gate = gate
        self.far = far
        self.chance = random.Random(seed)
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start everybody; they wait at the gate."""
        several: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (4, self.keep),
            (2, self.once),
            (2, self.pipeline),
            (2, lambda: self.keep(tls=True)),
            (2, self.upload),
            (1, lambda: self.upload(tls=True)),
            (1, self.mirror),
            (4, self.echo),
            (1, lambda: self.echo(tls=True)),
            (6, self.live),
            (2, self.slow),
            (2, self.resetting),
        ]
        if self.far is not None:
            several.append((2, self.lossy))
        for count, client in several:
            self.tasks += [asyncio.create_task(self.forever(client)) for _ in range(count)]

    async def end(self) -> None:
        """Send everybody home."""
        for task in self.tasks:
            task.cancel()
        for task in self.tasks:
            try:
                await task
            except asyncio.CancelledError:
                pass

    async def forever(self, client: Callable[[], Awaitable[None]]) -> None:
        """Have a client go to the service again and again."""
        while True:
            await self.gate.wait()
            self.gate.busy += 1
            try:
                await client()
            finally:
                self.gate.busy -= 1

    # -- what they do: each once, from a connection to its end -----------------------------------------------------------------

    async def visit(
        self, kind: str, tls: bool, talk: Callable[[Http], Awaitable[int]], opener: Opener | None = None
    ) -> None:
        """Connect and talk until the gate closes, the server says that it ends, or something goes wrong.

        ``talk`` returns how many bytes it has checked; 0: that was all.
        """
        begun = time.monotonic()
        http: Http | None = None
        try:
            async with asyncio.timeout(PATIENCE):
                if opener is None:
                    http = Http(*await self.site.open(tls))
                else:
                    http = Http(*await asyncio.open_connection(sock=await opener(), limit=1 << 20))
            while self.gate.is_open and not http.last:
                begun = time.monotonic()
                async with asyncio.timeout(PATIENCE):
                    size = await talk(http)
                if not size:
                    break
                self.ledger.answered(kind, size)
                await asyncio.sleep(self.chance.random() * 0.02)
        except (OSError, EOFError, WrongBytes, Refused, asyncio.LimitOverrunError) as error:
            self.ledger.failed(kind, begun, http.worker if http else "", error)
            await asyncio.sleep(0.05)
        finally:
            if http is not None:
                await http.close()

    def choice(self, most: int) -> tuple[int, int]:
        """A seed and a size; small ones are more frequent."""
        return self.chance.randrange(1 << 20), int(most ** self.chance.random())

    async def get(self, http: Http, path: str, most: int) -> int:
        """Ask for bytes and check them."""
        seed, size = self.choice(most)
        http.ask("GET", f"{path}?seed={seed}&size={size}")
        check(piece(seed, size), *await http.answer())
        return max(size, 1)

    async def keep(self, tls: bool = False) -> None:
        """Requests of all kinds, one after the other on one connection."""

        async def talk(http: Http) -> int:
            path, most = self.chance.choice(
                [("/bytes", 100_000), ("/bytes", 500), ("/file", 1_000_000), ("/chunks", 1_000_000), ("/later", 10_000)]
            )
            return await self.get(http, path, most)

        await self.visit("tls" if tls else "http", tls, talk)

    async def once(self) -> None:
        """A connection for each request."""

        async def talk(http: Http) -> int:
            size = await self.get(http, "/bytes", 5000)
            http.last = True
            return size

        await self.visit("http, once", False, talk)

    async def pipeline(self) -> None:
        """Many requests at once. When the server ends in their midst, what it has not begun is another's."""

        async def talk(http: Http) -> int:
            asked = [self.choice(3000) for _ in range(self.chance.randrange(2, 30))]
            for seed, size in asked:
                http.ask("GET", f"/bytes?seed={seed}&size={size}")
            checked = 0
            for seed, size in asked:
                check(piece(seed, size), *await http.answer())
                checked += max(size, 1)
                if http.last:
                    break
            return checked

        await self.visit("pipelined", False, talk)

    async def upload(self, tls: bool = False) -> None:
        """Bodies that go to a file; the answer is their hash."""

        async def talk(http: Http) -> int:
            seed, size = self.choice(1_000_000)
            body = piece(seed, size)
            http.ask("POST", "/upload", body, self.chance.choice([0, 1000, 70_000]))
            check(hashlib.sha256(body).hexdigest().encode(), *await http.answer())
            return max(size, 1)

        await self.visit("upload, tls" if tls else "upload", tls, talk)

    async def mirror(self) -> None:
        """Bodies that come back while they go."""

        async def talk(http: Http) -> int:
            seed, size = self.choice(1_000_000)
            body = piece(seed, size)
            http.ask("POST", "/mirror", body, self.chance.choice([0, 30_000]))
            check(body, *await http.answer())
            return max(size, 1)

        await self.visit("mirror", False, talk)

    async def slow(self) -> None:
        """Somebody who reads a large answer in small sips."""

        async def talk(http: Http) -> int:
            seed, size = self.chance.randrange(1 << 20), 400_000
            http.ask("GET", f"/chunks?seed={seed}&size={size}")
            http.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of reading transports
            await asyncio.sleep(self.chance.random())
            http.writer.transport.resume_reading()  # type: ignore[attr-defined]
            check(piece(seed, size), *await http.answer())
            http.last = True
            return size

        await self.visit("slow", False, talk)

    async def resetting(self) -> None:
        """Somebody who resets the connection in the middle of anything; nobody misses what is lost with it."""
        tls = self.chance.random() < 0.3
        try:
            http = Http(*await self.site.open(tls))
        except OSError:
            await asyncio.sleep(0.05)
            return
        seed, size = self.choice(1_000_000)
        match self.chance.randrange(5):
            case 0:
                http.ask("GET", f"/file?seed={seed}&size={size}")
            case 1:
                http.writer.write(
                    b"POST /upload HTTP/1.1\r\nHost: soak\r\nContent-Length: 900000\r\n\r\n" + piece(seed, 9000)
                )
            case 2:
                http.ask("POST", "/mirror", piece(seed, size))
            case 3:
                for _ in range(20):
                    http.ask("GET", f"/later?seed={seed}&size={size}")
            case _:
                http.writer.write(
                    b"GET /live HTTP/1.1\r\nHost: soak\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x82\xfe"
                )
        await asyncio.sleep(self.chance.random() * 0.2)
        http.reset()
        self.ledger.injected["connection reset"] += 1

    async def lossy(self) -> None:
        """Requests by way of a network that loses packets."""

        async def talk(http: Http) -> int:
            if self.chance.random() < 0.5:
                checked = await self.get(http, "/chunks", 50_000)
            else:
                seed, size = self.choice(50_000)
                http.ask("POST", "/mirror", piece(seed, size), 9000)
                check(piece(seed, size), *await http.answer())
                checked = max(size, 1)
            http.last = True
            return checked

        await self.visit(LOSSY, False, talk, self.far)

    # -- WebSockets ------------------------------------------------------------------------------------------------------------

    async def talk(self, kind: str, path: str, tls: bool, talk: Callable[[ClientConnection], Awaitable[None]]) -> None:
        """Open a WebSocket and talk until the gate closes. A closing handshake that the server begins ends it in order."""
        begun = time.monotonic()
        worker = ""
        scheme, (host, port) = ("wss", self.site.secure) if tls else ("ws", self.site.plain)
        options: dict[str, Any] = {"ssl": self.site.trust, "server_hostname": "localhost"} if tls else {}
        try:
            async with connect(
                f"{scheme}://{host}:{port}{path}", open_timeout=PATIENCE, ping_interval=None, max_size=None, **options
            ) as ws:
                assert ws.response is not None
                worker = ws.response.headers["X-Worker"]
                while self.gate.is_open:
                    begun = time.monotonic()
                    async with asyncio.timeout(PATIENCE):
                        await talk(ws)
                    self.ledger.checked[kind] += 1
        except websockets.ConnectionClosedError as error:
            if error.rcvd is not None and error.rcvd.code == 1001:
                self.recalled(kind)
            else:
                self.ledger.failed(kind, begun, worker, error)
        except websockets.ConnectionClosedOK:
            self.recalled(kind)
        except websockets.InvalidStatus as error:
            refused = Refused(f"status {error.response.status_code}")
            self.ledger.failed(kind, begun, worker, refused if error.response.status_code >= 500 else error)
        except (OSError, EOFError, WrongBytes, websockets.InvalidHandshake) as error:
            self.ledger.failed(kind, begun, worker, error)
            await asyncio.sleep(0.05)

    def recalled(self, kind: str) -> None:
        """The server has said that it goes away. What crossed with that is not lost: the client was told."""
        self.ledger.explained[f"WebSocket closed with 1001: {kind}"] += 1

    async def echo(self, tls: bool = False) -> None:
        """Messages that come back, compressed or not."""

        async def talk(ws: ClientConnection) -> None:
            sent: list[bytes | str] = []
            for _ in range(self.chance.randrange(1, 6)):
                seed, size = self.choice(100_000)
                data = piece(seed, size)
                sent.append(data if self.chance.random() < 0.7 else data.hex())
                await ws.send(sent[-1])
            for each in sent:
                if await ws.recv() != each:
                    raise WrongBytes(f"a message of {len(each)} came back as another")
                self.ledger.bytes += len(each)
            await asyncio.sleep(self.chance.random() * 0.02)

        await self.talk("echo, tls" if tls else "echo", "/echo", tls, talk)

    async def live(self) -> None:
        """Broadcast: each message once, in order, with all its bytes."""
        last = 0

        async def talk(ws: ClientConnection) -> None:
            nonlocal last
            message = await ws.recv()
            assert isinstance(message, bytes)
            number = int.from_bytes(message[:8], "big")
            if last and number != last + 1:
                raise WrongBytes(f"broadcast {number} came after {last}")
            last = number
            size = 100_000 if number % 40 == 0 else number * 997 % 5000
            if message[8:] != piece(number, size):
                raise WrongBytes(f"broadcast {number} has other bytes")
            self.ledger.bytes += size

        await self.talk("broadcast", "/live", False, talk)
