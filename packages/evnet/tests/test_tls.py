"""TLS, by OpenSSL in the turn and by way of Python: the same tests for both."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tls_peers import Peer, authority, certificate, client_context, server_context

import evnet
from evloop import Loop
from evloop.testing import ManualClock, run_until
from evnet._tls import client_settings, server_settings

Pair = Any
RST = struct.pack("ii", 1, 0)


@pytest.fixture(params=["openssl", "portable"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EVNET_TLS", request.param)
    return str(request.param)


@pytest.fixture
def serve(pair: Pair) -> Iterator[Callable[..., Peer]]:
    """Makes a client of a TLS server whose handshake is done, unless it says otherwise."""
    peers: list[Peer] = []

    def connect(
        shake: bool = True, *, context: ssl.SSLContext | None = None, receive_buffer: int = 0, **options: Any
    ) -> Peer:
        if pair.server is None:
            pair.listen(ssl=options.pop("ssl", None) or server_context(), **options)
        peer = Peer(pair.loop, pair.connect(receive_buffer=receive_buffer), context=context)
        peers.append(peer)
        if shake:
            count = len(pair.made)
            peer.shake()
            peer.until(lambda: len(pair.made) > count)
        return peer

    yield connect
    for peer in peers:
        peer.close()
    assert pair.server._tls is None or not {s for s in pair.server._tls._sessions.values() if s._shaking}


def made(pair: Pair) -> Any:
    return pair.made[-1]


def lost(peer: Peer, protocol: Any) -> Exception | None:
    peer.until(lambda: "lost" in protocol.calls)
    for _ in range(3):
        peer.loop.run_once(0.001)
    assert protocol.calls.count("lost") == 1
    error: Exception | None = protocol.error
    return error


def both(loop: Loop, recorder: Any, **options: Any) -> tuple[Any, Any, evnet.Server]:
    """A server's protocol and a client's, both ours, connected."""
    there = Ends(loop)
    server = evnet.listen_tcp(
        loop, lambda: recorder(there), "127.0.0.1", 0, ssl=options.pop("ssl", None) or server_context()
    )
    here = Ends(loop)
    options.setdefault("client", client_context())
    connecting = evnet.connect_tcp(
        loop,
        lambda: recorder(here),
        "127.0.0.1",
        server.addresses[0][1],
        ssl=options.pop("client"),
        server_hostname="localhost",
        **options,
    )
    run_until(loop, lambda: connecting.done() and (there.made or connecting.exception()))
    connecting.result()
    return there.made[0], here.made[0], server


class Ends:
    """What `Recorder` needs of a pair."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.made: list[Any] = []


# -- bytes -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_bytes_in_both_directions(loop: Loop, recorder: Any, engine: str, version: ssl.TLSVersion) -> None:
    client = client_context()
    client.minimum_version = client.maximum_version = version
    one, other, server = both(loop, recorder, client=client)
    assert one.transport.get_extra_info("tls_engine") == engine
    sent = bytearray()
    for size in (1, 100, 16384, 16385, 65536, 1_000_000):
        data = os.urandom(size)
        sent += data
        other.transport.write(data)
        one.transport.writelines([data[:10], data[10:]])
    run_until(loop, lambda: len(one.data) == len(other.data) == len(sent))
    assert one.data == other.data == sent
    other.transport.close()
    run_until(loop, lambda: "lost" in one.calls and "lost" in other.calls)
    assert [call for call in one.calls if call in ("made", "eof", "lost")] == ["made", "eof", "lost"]
    assert one.error is None
    assert other.error is None
    assert server.stats() == evnet.ServerStats(1, 0, 0, 0, 0)


def test_one_byte_a_turn(serve: Callable[..., Peer], pair: Pair) -> None:
    peer = serve(shake=False)
    peer.step = 1
    peer.shake()
    peer.until(lambda: pair.made)
    peer.write(b"in single bytes" * 10)
    peer.until(lambda: made(pair).data == b"in single bytes" * 10)


def test_a_record_cut_in_half(serve: Callable[..., Peer], pair: Pair) -> None:
    peer = serve()
    peer.tls.write(b"x" * 10000)
    record = peer.outgoing.read()
    peer.sock.send(record[:5000])
    pair.turns()
    assert not made(pair).data
    peer.sock.send(record[5000:])
    peer.until(lambda: made(pair).data == b"x" * 10000)


def test_what_comes_with_the_end_of_the_handshake(serve: Callable[..., Peer], pair: Pair) -> None:
    peer = serve(shake=False)

    def ready() -> bool:
        try:
            peer.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    peer.until(ready)
    peer.tls.write(b"at once")
    peer.tls.write(b" and again")
    peer.send()
    peer.until(lambda: pair.made and made(pair).data == b"at once and again")


def test_facts(loop: Loop, recorder: Any) -> None:
    one, other, server = both(loop, recorder)
    for protocol in (one, other):
        info = protocol.transport.get_extra_info
        assert isinstance(info("ssl_object"), ssl.SSLObject)
        assert info("cipher") == info("ssl_object").cipher()
        assert info("compression") is None
        assert info("compression", "none") == "none"
    assert one.transport.get_extra_info("sslcontext") is server.ssl
    assert ("DNS", "localhost") in other.transport.get_extra_info("peercert")["subjectAltName"]
    assert not one.transport.get_extra_info("peercert", {})
    assert not one.transport.can_write_eof()
    with pytest.raises(NotImplementedError, match="no half"):
        one.transport.write_eof()


def test_without_tls_there_are_no_such_facts(pair: Pair) -> None:
    _, protocol = pair.connected()
    for name in ("ssl_object", "sslcontext", "peercert", "cipher", "compression", "tls_engine"):
        assert protocol.transport.get_extra_info(name) is None
    assert pair.server.ssl is None
    with pytest.raises(evnet.EvNetError, match="without TLS"):
        pair.server.ssl = server_context()


def test_alpn(loop: Loop, recorder: Any) -> None:
    server, client = server_context(), client_context()
    server.set_alpn_protocols(["h2", "http/1.1"])
    client.set_alpn_protocols(["http/1.1"])
    for protocol in both(loop, recorder, ssl=server, client=client)[:2]:
        assert protocol.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


def test_sni_chooses_the_certificate(loop: Loop, recorder: Any) -> None:
    server, other = server_context("elsewhere.example"), server_context()
    asked = []

    def choose(tls: ssl.SSLObject, name: str, context: ssl.SSLContext) -> None:
        asked.append(name)
        tls.context = other

    server.sni_callback = choose
    one, two, _ = both(loop, recorder, ssl=server)
    one.transport.write(b"by the other context")
    run_until(loop, lambda: two.data == b"by the other context")
    assert asked == ["localhost"]


def test_client_certificates(loop: Loop, recorder: Any) -> None:
    server, client = server_context(), client_context()
    server.verify_mode = ssl.CERT_REQUIRED
    authority().configure_trust(server)
    certificate("somebody@example.org").configure_cert(client)
    one, _, _ = both(loop, recorder, ssl=server, client=client)
    assert ("email", "somebody@example.org") in one.transport.get_extra_info("peercert")["subjectAltName"]


def test_a_client_that_is_asked_after_the_handshake(loop: Loop, recorder: Any) -> None:
    server, client = server_context(), client_context()
    authority().configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    certificate("somebody@example.org").configure_cert(client)
    client.post_handshake_auth = True
    server.post_handshake_auth = True
    one, other, _ = both(loop, recorder, ssl=server, client=client)
    assert not one.transport.get_extra_info("peercert", {})
    tls = one.transport.get_extra_info("ssl_object")
    tls.verify_client_post_handshake()
    one.transport.write(b"who are you?")
    run_until(loop, lambda: other.data)
    other.transport.write(b"see my certificate")
    run_until(loop, lambda: one.data)
    assert ("email", "somebody@example.org") in one.transport.get_extra_info("peercert")["subjectAltName"]
    one.transport.write(b" thanks")
    run_until(loop, lambda: other.data == b"who are you? thanks")


# -- certificates ----------------------------------------------------------------------------------------------------------------


def untrusting() -> dict[str, Any]:
    return {"client": client_context(trusting=False)}


def expired() -> dict[str, Any]:
    return {"ssl": server_context(expired=True)}


def for_another_host() -> dict[str, Any]:
    return {"ssl": server_context("elsewhere.example")}


@pytest.mark.parametrize(
    ("options", "what"), [(untrusting, "local issuer"), (expired, "expired"), (for_another_host, "localhost")]
)
def test_a_certificate_that_is_not_accepted(
    loop: Loop, recorder: Any, options: Callable[[], dict[str, Any]], what: str
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=what) as raised:
        both(loop, recorder, **options())
    assert raised.value.verify_code


def test_a_missing_client_certificate(loop: Loop, recorder: Any) -> None:
    server = server_context()
    server.verify_mode = ssl.CERT_REQUIRED
    authority().configure_trust(server)
    listening = evnet.listen_tcp(loop, lambda: pytest.fail("a protocol was made"), "127.0.0.1", 0, ssl=server)
    here = Ends(loop)
    # In TLS 1.3 a client's handshake is done before the server has looked at its certificate.
    evnet.connect_tcp(
        loop, lambda: recorder(here), *listening.addresses[0], ssl=client_context(), server_hostname="localhost"
    )
    run_until(loop, lambda: here.made and "lost" in here.made[0].calls)
    assert isinstance(here.made[0].error, ssl.SSLError)
    assert "CERTIFICATE_REQUIRED" in here.made[0].error.reason
    assert here.made[0].error.library == "SSL"
    assert listening.stats().failed_handshakes == 1


def test_certificates_are_replaced_without_a_restart(serve: Callable[..., Peer], pair: Pair) -> None:
    def subject(peer: Peer) -> Any:
        return peer.tls.getpeercert()["subjectAltName"][0][1]

    first = serve()
    assert subject(first) == "localhost"
    pair.server.ssl = server_context("localhost", "second.example")
    second = serve()
    assert ("DNS", "second.example") in second.tls.getpeercert()["subjectAltName"]
    certificate("localhost", "third.example").configure_cert(pair.server.ssl)  # load_cert_chain
    third = serve()
    assert ("DNS", "third.example") in third.tls.getpeercert()["subjectAltName"]
    for peer, protocol in zip((first, second, third), pair.made, strict=True):
        peer.write(b"still there")
        peer.until(lambda protocol=protocol: protocol.data == b"still there")
    with pytest.raises(TypeError, match="SSLContext"):
        pair.server.ssl = None


# -- ends ------------------------------------------------------------------------------------------------------------------------


def test_close_sends_everything_and_a_close_notify(serve: Callable[..., Peer], pair: Pair) -> None:
    peer = serve()
    made(pair).transport.write(b"x" * 300_000)
    made(pair).transport.close()
    peer.until(lambda: peer.read() and peer.ended == "clean")
    assert len(peer.plain) == 300_000
    assert not {"eof", "lost"} & set(made(pair).calls)  # it waits for the answer
    peer.close_notify()
    assert lost(peer, made(pair)) is None


def test_the_peers_close_notify(serve: Callable[..., Peer], pair: Pair) -> None:
    peer = serve()
    made(pair).answer_eof = True  # which has no effect with TLS
    peer.tls.write(b"last words")
    peer.close_notify()
    assert lost(peer, made(pair)) is None
    assert made(pair).data == b"last words"
    assert made(pair).calls == ["made", "eof", "lost"]
    peer.until(lambda: peer.read() or peer.ended)
    assert peer.ended in ("clean", "eof")


@pytest.mark.parametrize("half", [False, True], ids=["between records", "in a record"])
def test_truncation_is_an_end(serve: Callable[..., Peer], pair: Pair, half: bool) -> None:
    """As with asyncio: eof_received, and connection_lost without an exception."""
    peer = serve()
    peer.write(b"whole")
    peer.until(lambda: made(pair).data)
    if half:
        peer.tls.write(b"never whole")
        peer.sock.send(peer.outgoing.read()[:-1])
    peer.sock.shutdown(socket.SHUT_WR)
    assert lost(peer, made(pair)) is None
    assert made(pair).calls == ["made", "eof", "lost"]
    assert made(pair).data == b"whole"


def test_a_peer_that_never_answers_close_notify(serve: Callable[..., Peer], pair: Pair, loop: Loop) -> None:
    peer = serve(ssl_shutdown_timeout=5)
    clock = ManualClock(loop)
    made(pair).transport.close()
    peer.until(lambda: not peer.read() and peer.ended)
    clock.advance(4.9)
    assert "lost" not in made(pair).calls
    clock.advance(0.2)
    assert isinstance(lost(peer, made(pair)), TimeoutError)


def test_a_peer_that_never_reads(serve: Callable[..., Peer], pair: Pair, loop: Loop) -> None:
    peer = serve(ssl_shutdown_timeout=5)
    protocol = made(pair)
    protocol.transport.write(bytes(30_000_000))
    size = 0
    while size != protocol.transport.get_write_buffer_size():  # the kernel takes no more
        size = protocol.transport.get_write_buffer_size()
        pair.turns(100)
    clock = ManualClock(loop)
    protocol.transport.close()
    clock.advance(0)
    clock.advance(5.1)
    clock.advance(5.1)
    assert isinstance(lost(peer, protocol), TimeoutError)


def test_abort(serve: Callable[..., Peer], pair: Pair) -> None:
    peer = serve()
    made(pair).transport.write(b"x" * 100)
    made(pair).transport.abort()
    assert lost(peer, made(pair)) is None
    peer.until(lambda: peer.ended)
    assert peer.ended == "reset"


def test_a_peer_that_resets(serve: Callable[..., Peer], pair: Pair) -> None:
    peer = serve()
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    peer.sock.close()
    pair.until(lambda: "lost" in made(pair).calls)
    assert isinstance(made(pair).error, ConnectionResetError)


def test_a_record_that_was_changed_on_the_way(serve: Callable[..., Peer], pair: Pair) -> None:
    peer = serve()
    peer.tls.write(b"abc")
    record = bytearray(peer.outgoing.read())
    record[-1] ^= 1
    peer.sock.send(record)
    error = lost(peer, made(pair))
    assert isinstance(error, ssl.SSLError)
    assert "BAD_RECORD_MAC" in error.reason
    assert made(pair).calls == ["made", "lost"]
    with pytest.raises(ssl.SSLError, match=r"(?i)alert bad record mac"):
        peer.read()


def test_plain_bytes_are_never_taken_for_deciphered_ones(serve: Callable[..., Peer], pair: Pair) -> None:
    peer = serve()
    peer.sock.send(b"GET / HTTP/1.1\r\n\r\n")
    assert isinstance(lost(peer, made(pair)), ssl.SSLError)
    assert not made(pair).data


# -- handshakes that fail --------------------------------------------------------------------------------------------------------


def failed(pair: Pair, count: int = 1) -> None:
    pair.until(lambda: pair.server.stats().failed_handshakes == count)
    assert not pair.made
    pair.until(lambda: not pair.server._tls._sessions)
    assert pair.server.stats().open == 0


def test_plaintext_on_a_tls_port(serve: Callable[..., Peer], pair: Pair) -> None:
    peer = serve(shake=False)
    peer.sock.send(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    peer.until(lambda: peer.ended)
    peer.close()
    failed(pair)


def test_tls_on_a_plaintext_port(loop: Loop, pair: Pair) -> None:
    class Plain:
        def connection_made(self, transport: Any) -> None:
            transport.write(b"220 plain speaking\r\n")

        def data_received(self, data: bytes) -> None:
            pass

        def eof_received(self) -> None:
            pass

        def connection_lost(self, exc: Exception | None) -> None:
            pass

    server = pair.listen(Plain)
    connecting = evnet.connect_tcp(
        loop,
        Plain,  # type: ignore[arg-type]
        *server.addresses[0],
        ssl=client_context(),
        server_hostname="localhost",
    )
    run_until(loop, connecting.done)
    assert isinstance(connecting.exception(), ssl.SSLError)
    run_until(loop, lambda: not server.connections)


def test_a_reset_in_the_middle_of_the_handshake(serve: Callable[..., Peer], pair: Pair) -> None:
    peer = serve(shake=False)
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    peer.send()
    pair.until(lambda: pair.server.stats().accepted == 1)
    pair.turns()
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    peer.sock.close()
    failed(pair)


def test_an_end_in_the_middle_of_the_handshake(serve: Callable[..., Peer], pair: Pair) -> None:
    peer = serve(shake=False)
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    peer.sock.send(peer.outgoing.read()[:100])
    peer.sock.shutdown(socket.SHUT_WR)
    peer.until(lambda: peer.ended)
    failed(pair)


def test_a_client_that_never_finishes_the_handshake(serve: Callable[..., Peer], pair: Pair, loop: Loop) -> None:
    neighbour = serve(ssl_handshake_timeout=5)
    pair.made.clear()
    peer = serve(shake=False)
    peer.sock.send(b"\x16\x03\x01")
    pair.until(lambda: pair.server.stats().accepted == 2)
    clock = ManualClock(loop, loop.time() + 0.1)
    clock.advance(4.5)
    assert pair.server.stats().failed_handshakes == 0
    clock.advance(0.6)
    assert pair.server.stats().failed_handshakes == 1
    clock.advance(1.1)  # it lingers that long
    peer.until(lambda: peer.ended)
    clock.advance(1.1)
    assert not pair.made
    neighbour.write(b"unharmed")
    neighbour.turn()


def take_hello(loop: Loop, sock: socket.socket) -> None:
    """Read a client's first record, however many pieces it comes in."""
    sock.setblocking(False)
    got = b""

    def is_whole() -> bool:
        nonlocal got
        with contextlib.suppress(BlockingIOError):
            got += sock.recv(1000)
        return len(got) > 5 and len(got) == 5 + int.from_bytes(got[3:5], "big")

    run_until(loop, is_whole)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that accepts, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_a_server_that_never_finishes_the_handshake(loop: Loop, silent: socket.socket, recorder: Any) -> None:
    connecting = evnet.connect_tcp(
        loop,
        lambda: recorder(Ends(loop)),
        *silent.getsockname(),
        ssl=client_context(),
        server_hostname="localhost",
        ssl_handshake_timeout=5,
    )
    accepted = silent.accept()[0]
    take_hello(loop, accepted)
    clock = ManualClock(loop)
    clock.advance(5.1)
    with pytest.raises(TimeoutError, match="handshake has taken longer than 5 s"):
        connecting.result()
    clock.advance(1.1)
    accepted.close()


@pytest.mark.parametrize("how", ["reset", "end", "cancel", "timeout"])
def test_connecting_ends_in_the_middle_of_the_handshake(
    loop: Loop, silent: socket.socket, recorder: Any, how: str
) -> None:
    ends = Ends(loop)
    connecting = evnet.connect_tcp(
        loop,
        lambda: recorder(ends),
        *silent.getsockname(),
        ssl=client_context(),
        server_hostname="localhost",
        timeout=5 if how == "timeout" else None,
    )
    accepted = silent.accept()[0]
    take_hello(loop, accepted)
    if how == "reset":
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        accepted.close()
    elif how == "end":
        accepted.close()
    elif how == "cancel":
        connecting.cancel()
    else:
        ManualClock(loop).advance(5.1)
    run_until(loop, connecting.done)
    if how == "cancel":
        assert connecting.cancelled()
    elif how == "timeout":
        with pytest.raises(TimeoutError, match="the TLS handshake is not done"):
            connecting.result()
    else:
        assert isinstance(connecting.exception(), ConnectionResetError)
    loop.run_once(0)
    if how in ("cancel", "timeout"):
        accepted.setblocking(True)
        with pytest.raises(ConnectionResetError):
            accepted.recv(1000)
        accepted.close()
    assert not ends.made


def test_closing_a_server_resets_those_whose_handshake_is_not_done(serve: Callable[..., Peer], pair: Pair) -> None:
    done = serve()
    peer = serve(shake=False)
    pair.until(lambda: pair.server.stats().accepted == 2)
    pair.server.close()
    peer.until(lambda: peer.ended)
    assert peer.ended == "reset"
    done.write(b"goes on")
    done.until(lambda: made(pair).data == b"goes on")


# -- queues ----------------------------------------------------------------------------------------------------------------------


def test_back_pressure_on_what_is_written(serve: Callable[..., Peer], pair: Pair, loop: Loop) -> None:
    peer = serve()
    protocol = made(pair)
    written = 0
    while "pause" not in protocol.calls:
        protocol.transport.write(b"x" * 50_000)
        written += 50_000
        loop.run_once(0.001)
    assert protocol.transport.get_write_buffer_size() > 64 * 1024
    peer.until(lambda: len(peer.read()) == written)
    peer.until(lambda: "resume" in protocol.calls)
    assert protocol.transport.get_write_buffer_size() == 0


def test_the_cap_on_what_is_queued(serve: Callable[..., Peer], pair: Pair, loop: Loop) -> None:
    peer = serve(max_queued=1_000_000)
    protocol = made(pair)
    most = 0
    while "lost" not in protocol.calls:
        if not protocol.transport.is_closing():
            protocol.transport.write(b"x" * 100_000)
            most = max(most, protocol.transport.get_write_buffer_size())
        loop.run_once(0.001)
    assert isinstance(lost(peer, protocol), evnet.WriteQueueFullError)
    assert most < 1_200_000


def test_pause_reading_stops_the_peer(serve: Callable[..., Peer], pair: Pair, loop: Loop) -> None:
    peer = serve()
    protocol = made(pair)
    protocol.transport.pause_reading()
    pair.turns()
    sent = 0
    for _ in range(2000):
        peer.tls.write(b"x" * 16384)
        data = peer.outgoing.read()
        try:
            while data:
                data = data[peer.sock.send(data) :]
        except BlockingIOError:
            loop.run_once(0.001)
            try:
                peer.sock.send(data[:1])
            except BlockingIOError:
                break
            data = data[1:]
        sent += 16384
    else:
        pytest.fail("the peer was not stopped")
    assert len(protocol.data) == 0
    protocol.transport.resume_reading()
    pair.until(lambda: len(protocol.data) >= sent)


def test_a_protocol_that_pauses_at_every_byte(loop: Loop, recorder: Any) -> None:
    one, other, _ = both(loop, recorder)
    received = one.data_received

    def data_received(data: bytes) -> None:
        received(data)
        one.transport.pause_reading()
        loop.call_soon(one.transport.resume_reading)

    one.data_received = data_received
    other.transport.write(bytes(range(256)) * 4000)
    other.transport.close()
    run_until(loop, lambda: "lost" in one.calls)
    assert one.data == bytes(range(256)) * 4000
    assert one.error is None


def test_broadcast(loop: Loop, recorder: Any) -> None:
    one, other, _ = both(loop, recorder)
    evnet.broadcast([one.transport, other.transport], b"to all" * 10_000)
    run_until(loop, lambda: len(one.data) == len(other.data) == 60_000)


# -- files -----------------------------------------------------------------------------------------------------------------------


def test_a_file_in_order_with_what_is_written(serve: Callable[..., Peer], pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = os.urandom(9_000_000)
    path.write_bytes(data)
    peer = serve(receive_buffer=65536)
    transport = made(pair).transport
    told: list[Any] = []
    transport.write(b"before ")
    with path.open("rb") as file:
        transport.send_file(file, 1, sent=told.append)
        transport.send_file(file, 0, 1, sent=told.append)
    transport.write(b" after")
    pair.turns()
    assert not told  # the kernel does not take as much
    peer.until(lambda: len(peer.read()) == len(data) + 13)
    assert peer.plain == b"before " + data[1:] + data[:1] + b" after"
    peer.until(lambda: told == [None, None])


def test_a_file_that_has_become_shorter(serve: Callable[..., Peer], pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    peer = serve()
    told: list[Any] = []
    with path.open("r+b") as file:
        made(pair).transport.send_file(file, sent=told.append)
        file.truncate(500)
    error = lost(peer, made(pair))
    assert isinstance(error, OSError)
    assert error.errno == errno.EIO
    assert len(told) == 1
    assert told[0] is not None


def test_a_file_and_a_peer_that_goes_away(serve: Callable[..., Peer], pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(9_000_000))
    peer = serve(receive_buffer=4096)
    told: list[Any] = []
    with path.open("rb") as file:
        made(pair).transport.send_file(file, sent=told.append)
    pair.turns()
    made(pair).transport.abort()
    assert lost(peer, made(pair)) is None
    assert [type(each) for each in told] == [evnet.ConnectionClosedError]


# -- starting TLS ----------------------------------------------------------------------------------------------------------------


def plain_pair(loop: Loop, recorder: Any) -> tuple[Any, Any]:
    one, other = Ends(loop), Ends(loop)
    evnet.stream_pair(loop, lambda: recorder(one), lambda: recorder(other))
    return one.made[0], other.made[0]


def test_start_tls(loop: Loop, recorder: Any) -> None:
    server, client = plain_pair(loop, recorder)
    server.transport.write(b"220 go ahead\r\n")
    serving = server.transport.start_tls(server_context(), server_side=True)
    server.transport.write(b"only by TLS")
    run_until(loop, lambda: client.data == b"220 go ahead\r\n")
    client.data.clear()
    begun = client.transport.start_tls(client_context(), server_hostname="localhost")
    client.transport.write(b"early")
    run_until(loop, lambda: serving.done() and begun.done() and len(server.data) == 5 and len(client.data) == 11)
    assert begun.result() is client.transport
    assert serving.result() is server.transport
    assert client.data == b"only by TLS"
    assert server.data == b"early"
    with pytest.raises(evnet.EvNetError, match="TLS already"):
        client.transport.start_tls(client_context(), server_hostname="localhost")
    client.transport.close()
    run_until(loop, lambda: "lost" in server.calls and "lost" in client.calls)
    assert server.calls == ["made", "eof", "lost"]
    assert server.error is None
    assert client.error is None


@pytest.mark.parametrize("kind", ["plain", "buffered", "paused"])
def test_bytes_behind_the_command_are_for_tls(pair: Pair, kind: str) -> None:
    """A client that sends its hello together with the command is served; what an attacker puts there is no command."""
    begun: list[Any] = []

    command = b"STARTTLS\r\n"

    class Server:
        def __init__(self) -> None:
            self.got = b""
            self.buffer = bytearray(100)
            pair.made.append(self)

        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            if kind == "paused":
                transport.pause_reading()

        def data_received(self, data: bytes) -> None:
            self.got += data

        def eof_received(self) -> None:
            pass

        def connection_lost(self, exc: Exception | None) -> None:
            pass

    class Buffered(Server):
        def get_buffer(self, sizehint: int) -> memoryview:
            return memoryview(self.buffer)[
                : 100 if begun else len(command) - len(self.got)
            ]  # just what holds the command

        def buffer_updated(self, count: int) -> None:
            self.got += self.buffer[:count]
            if self.got == command:
                begun.append(self.transport.start_tls(server_context(), server_side=True))

    pair.listen(Buffered if kind == "buffered" else Server)
    sock = pair.connect()
    peer = Peer(pair.loop, sock)
    pair.until(lambda: pair.made)
    server = pair.made[0]
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    hello = peer.outgoing.read()
    if kind == "buffered":
        sock.send(command + hello)
    elif kind == "paused":
        sock.send(hello)
        pair.turns()
        begun.append(server.transport.start_tls(server_context(), server_side=True))
        server.transport.resume_reading()
    else:
        sock.send(command)
        pair.until(lambda: server.got == command)
        sock.send(hello)
        begun.append(server.transport.start_tls(server_context(), server_side=True))
    peer.shake()
    peer.write(b"NOOP")
    peer.until(lambda: server.got.endswith(b"NOOP"))
    assert len(begun) == 1
    assert begun[0].done()
    assert server.got == (b"NOOP" if kind == "paused" else command + b"NOOP")


@pytest.mark.parametrize("kind", ["plain", "buffered"])
def test_pieces_kept_back_behind_the_command_are_for_tls(pair: Pair, kind: str) -> None:
    """What came in several reads while reading was paused: TLS gets it in its order, and the protocol nothing of it."""
    begun: list[Any] = []
    command = b"STARTTLS\r\n"

    class Server:
        got = b""
        buffer = bytearray(len(command))

        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            transport.pause_reading()
            pair.made.append(self)

        def data_received(self, data: bytes) -> None:
            self.got += data
            if self.got == command:
                begun.append(self.transport.start_tls(server_context(), server_side=True))

        def eof_received(self) -> None:
            pass

        def connection_lost(self, exc: Exception | None) -> None:
            pass

    class Buffered(Server):
        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, count: int) -> None:
            self.data_received(bytes(self.buffer[:count]))

    pair.listen(Buffered if kind == "buffered" else Server)
    peer = Peer(pair.loop, pair.connect())
    pair.until(lambda: pair.made)
    server = pair.made[0]
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    hello = peer.outgoing.read()
    # As if C had read it in pieces before it heard of the pause.
    for piece in (
        command + (hello[:50] if kind == "buffered" else b""),
        hello[50 if kind == "buffered" else 0 : 100],
        hello[100:],
    ):
        server.transport._hold(piece)
    server.transport.resume_reading()
    peer.shake()
    peer.write(b"NOOP")
    peer.until(lambda: server.got == command + b"NOOP")
    assert len(begun) == 1
    assert begun[0].done()


def test_an_injected_command_is_no_command(pair: Pair, recorder: Any) -> None:
    sock, server = pair.connected()
    begun = server.transport.start_tls(server_context(), server_side=True)
    sock.sendall(b"MAIL FROM:<attacker>\r\n")
    pair.until(begun.done)
    with pytest.raises(ssl.SSLError):
        begun.result()
    sock.close()
    pair.until(lambda: "lost" in server.calls)
    assert server.error is begun.exception()
    assert not server.data
    assert server.calls == ["made", "lost"]


def test_start_tls_that_fails(loop: Loop, recorder: Any) -> None:
    server, client = plain_pair(loop, recorder)
    serving = server.transport.start_tls(server_context("elsewhere.example"), server_side=True)
    begun = client.transport.start_tls(client_context(), server_hostname="localhost")
    client.transport.write(b"secret")
    run_until(loop, lambda: serving.done() and begun.done() and "lost" in client.calls and "lost" in server.calls)
    assert isinstance(begun.exception(), ssl.SSLCertVerificationError)
    assert client.error is begun.exception()
    assert isinstance(serving.exception(), ssl.SSLError)
    assert "ALERT_BAD_CERTIFICATE" in str(serving.exception()) or "ALERT" in str(serving.exception())
    assert not server.data


@pytest.mark.parametrize("how", ["close", "abort"])
def test_ending_while_tls_begins(loop: Loop, recorder: Any, how: str) -> None:
    server, client = plain_pair(loop, recorder)
    begun = client.transport.start_tls(client_context(), server_hostname="localhost")
    getattr(client.transport, how)()
    run_until(loop, lambda: begun.done() and "lost" in client.calls and "lost" in server.calls)
    assert isinstance(begun.exception(), evnet.ConnectionClosedError)
    assert client.calls == ["made", "lost"]


def test_what_start_tls_refuses(loop: Loop, recorder: Any) -> None:
    _, client = plain_pair(loop, recorder)
    with pytest.raises(TypeError, match="SSLContext"):
        client.transport.start_tls(None)
    with pytest.raises(ValueError, match="server_hostname"):
        client.transport.start_tls(client_context())
    with pytest.raises(ValueError, match="ssl_handshake_timeout"):
        client.transport.start_tls(client_context(), server_hostname="x", ssl_handshake_timeout=0)
    client.transport.close()
    with pytest.raises(evnet.ConnectionClosedError):
        client.transport.start_tls(client_context(), server_hostname="localhost")
    run_until(loop, lambda: "lost" in client.calls)


# -- other ways to a connection --------------------------------------------------------------------------------------------------


def test_unix_sockets(loop: Loop, recorder: Any, tmp_path: Path) -> None:
    there, here = Ends(loop), Ends(loop)
    path = str(tmp_path / "s")
    server = evnet.listen_unix(loop, lambda: recorder(there), path, ssl=server_context())
    evnet.connect_unix(loop, lambda: recorder(here), path, ssl=client_context(), server_hostname="localhost")
    run_until(loop, lambda: here.made and there.made)
    here.made[0].transport.write(b"hello")
    run_until(loop, lambda: there.made[0].data == b"hello")
    assert server.stats().failed_handshakes == 0


def test_listen_socket_and_adopt(loop: Loop, recorder: Any) -> None:
    there = Ends(loop)
    server = evnet.listen_socket(
        loop, lambda: recorder(there), socket.create_server(("127.0.0.1", 0)), ssl=server_context()
    )
    ours, theirs = socket.socketpair()
    connection = server.adopt(ours)
    assert not there.made
    peer = Peer(loop, theirs)
    peer.shake()
    peer.until(lambda: there.made)
    assert there.made[0].transport is connection
    peer.write(b"adopted")
    peer.until(lambda: there.made[0].data == b"adopted")
    peer.close()
    ours, theirs = socket.socketpair()
    server.adopt(ours)
    theirs.close()
    run_until(loop, lambda: server.stats().failed_handshakes == 1 and not server.connections)
    assert len(there.made) == 1


def test_adopting_with_a_context_for_the_other_side(loop: Loop, recorder: Any) -> None:
    """There will never be TLS: nobody is kept waiting for it."""
    there = Ends(loop)
    server = evnet.listen_socket(
        loop, lambda: recorder(there), socket.create_server(("127.0.0.1", 0)), ssl=client_context()
    )
    ours, theirs = socket.socketpair()
    with theirs:
        with pytest.raises((ssl.SSLError, ValueError)):
            server.adopt(ours)
        run_until(loop, lambda: not server.connections)
        assert theirs.recv(1) == b""
    assert not there.made


def test_several_at_once(loop: Loop, recorder: Any) -> None:
    there, here = Ends(loop), Ends(loop)
    server = evnet.listen_tcp(loop, lambda: recorder(there), "127.0.0.1", 0, ssl=server_context())
    for _ in range(20):
        evnet.connect_tcp(
            loop,
            lambda: recorder(here),
            *server.addresses[0],
            ssl=client_context(),
            server_hostname="localhost",
        )
    run_until(loop, lambda: len(there.made) == len(here.made) == 20)
    for number, protocol in enumerate(here.made):
        protocol.transport.write(bytes([number]) * 20_000)
    run_until(loop, lambda: all(len(protocol.data) == 20_000 for protocol in there.made))
    assert sorted(protocol.data[0] for protocol in there.made) == list(range(20))
    assert all(len(set(protocol.data)) == 1 for protocol in there.made)
    loop.close()  # with all of them open


# -- options ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [float("inf"), 1e300])
def test_timeouts_that_never_come(loop: Loop, recorder: Any, timeout: float) -> None:
    there, here = Ends(loop), Ends(loop)
    limits: dict[str, Any] = {"ssl_handshake_timeout": timeout, "ssl_shutdown_timeout": timeout}
    server = evnet.listen_tcp(loop, lambda: recorder(there), "127.0.0.1", 0, ssl=server_context(), **limits)
    connecting = evnet.connect_tcp(
        loop,
        lambda: recorder(here),
        *server.addresses[0],
        ssl=client_context(),
        server_hostname="localhost",
        **limits,
    )
    run_until(loop, connecting.done)
    connecting.result().close()
    run_until(loop, lambda: there.made and "lost" in there.made[0].calls and "lost" in here.made[0].calls)
    assert here.made[0].error is None


@pytest.mark.parametrize("name", ["a\0b", ".", "x" * 64, "a..b", "\udc80"])
def test_server_hostnames_that_are_none(loop: Loop, pair: Pair, name: str) -> None:
    """They are refused at once, with the exception that arguments have; not when the connection is there."""
    with pytest.raises(ValueError, match="server_hostname is not a host name"):
        evnet.connect_tcp(loop, object, "127.0.0.1", 1, ssl=client_context(), server_hostname=name)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="server_hostname is not a host name"):
        evnet.connect_unix(loop, object, "/x", ssl=client_context(), server_hostname=name)  # type: ignore[arg-type]
    _, protocol = pair.connected()
    with pytest.raises(ValueError, match="server_hostname is not a host name"):
        protocol.transport.start_tls(client_context(), server_hostname=name)
    protocol.transport.write(b"x")  # it goes on as it was
    assert protocol.transport.state == "open"


@pytest.mark.parametrize("name", ["localhost", "bücher.example", "127.0.0.1", "::1", "a_b.example", "*.example"])
def test_server_hostnames_of_every_kind(name: str) -> None:
    settings = client_settings(client_context(), name, None, None, None)
    assert settings is not None
    assert settings.server_hostname == name


def test_what_the_options_may_be(loop: Loop) -> None:
    context = client_context()
    with pytest.raises(TypeError, match="SSLContext"):
        evnet.listen_tcp(loop, object, "127.0.0.1", 0, ssl=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="only meaningful with ssl"):
        evnet.listen_tcp(loop, object, "127.0.0.1", 0, ssl_handshake_timeout=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ssl_shutdown_timeout"):
        server_settings(context, None, -1)
    with pytest.raises(ValueError, match="only meaningful with ssl"):
        evnet.connect_tcp(loop, object, "127.0.0.1", 1, server_hostname="x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="SSLContext"):
        client_settings("x", None, "host", None, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is no host"):
        evnet.connect_unix(loop, object, "/x", ssl=context)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="context checks it"):
        client_settings(context, "", "host", None, None)
    context.check_hostname = False
    for name, expected in (("", None), (None, "host"), ("other", "other")):
        settings = client_settings(context, name, "host", None, None)
        assert settings is not None
        assert settings.server_hostname == expected
        assert (settings.handshake_timeout, settings.shutdown_timeout) == (60, 30)
    settings = client_settings(True, None, "host", 1, 2)
    assert settings is not None
    assert settings.context.verify_mode == ssl.CERT_REQUIRED
    assert (settings.handshake_timeout, settings.shutdown_timeout) == (1, 2)
    with pytest.raises(TypeError, match="not None"):
        evnet.TlsAcceptor(loop, None)  # type: ignore[arg-type]


def test_a_context_for_the_other_side(loop: Loop, pair: Pair) -> None:
    """Each client is hung up on, and the loop's exception handler hears why."""
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    pair.listen(ssl=client_context())
    client = pair.connect()
    pair.until(lambda: reported)
    pair.turns()
    assert isinstance(reported[0]["exception"], (ssl.SSLError, ValueError))
    with pytest.raises(ConnectionResetError):
        client.recv(1)
