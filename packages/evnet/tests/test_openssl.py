"""When OpenSSL is called in the turn, and when TLS goes by way of Python."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tls_peers import server_context

from evnet import _openssl


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    _openssl.openssl_usable.cache_clear()
    yield
    _openssl.openssl_usable.cache_clear()


def session() -> ssl.SSLObject:
    context: ssl.SSLContext = server_context()
    return context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)


def test_here_it_can_be_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVNET_TLS", raising=False)
    assert _openssl.openssl_usable()
    assert _openssl.engine_name() == "openssl"
    assert _openssl.pointer_of(session())


def test_it_can_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVNET_TLS", "portable")
    assert _openssl.engine_name() == "portable"
    assert _openssl.pointer_of(session()) == 0


def test_what_is_asked_for_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVNET_TLS", "gnutls")
    with pytest.raises(ValueError, match="openssl or portable, not 'gnutls'"):
        _openssl.engine_name()
    monkeypatch.setenv("EVNET_TLS", "openssl")
    monkeypatch.setattr(_openssl, "_proved_addresses", lambda: None)
    with pytest.raises(ValueError, match="cannot be used from C"):
        _openssl.engine_name()


@pytest.mark.parametrize(("index", "value"), [(0, 1), (1, 0), (2, 12345)])
def test_objects_that_are_laid_out_in_another_way(monkeypatch: pytest.MonkeyPatch, index: int, value: int) -> None:
    monkeypatch.delenv("EVNET_TLS", raising=False)
    word = _openssl._word
    monkeypatch.setattr(_openssl, "_word", lambda owner, at: value if at == index else word(owner, at))
    assert not _openssl.openssl_usable()
    assert _openssl.engine_name() == "portable"


def test_a_library_without_the_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVNET_TLS", raising=False)
    monkeypatch.setattr(_openssl, "FUNCTIONS", (*_openssl.FUNCTIONS, "SSL_is_not_there"))
    assert not _openssl.openssl_usable()


def test_another_number_of_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_openssl, "FUNCTIONS", _openssl.FUNCTIONS[:-1])
    assert not _openssl.openssl_usable()


FIRST_HANDSHAKE = """
import os, resource, socket, ssl, threading
from tls_peers import client_context, server_context
import evloop, evnet
from evloop.testing import run_until

class Protocol:
    def connection_made(self, transport): made.append(transport)
    def connection_lost(self, exc): pass

made = []
loop = evloop.Loop()
server = evnet.listen_tcp(loop, Protocol, "127.0.0.1", 0, ssl=server_context())
client = client_context().wrap_socket(socket.socket(), server_hostname="localhost", do_handshake_on_connect=False)
client.settimeout(10)
client.connect(server.addresses[0])
# One more can be opened: the connection.
limit = os.dup(0)
os.close(limit)
resource.setrlimit(resource.RLIMIT_NOFILE, (limit + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
thread = threading.Thread(target=client.do_handshake, daemon=True)
thread.start()
run_until(loop, lambda: made)
thread.join()
print(made[0].get_extra_info("tls_engine"))
"""


def test_the_first_handshake_opens_no_file() -> None:
    environment = os.environ | {"EVNET_TLS": "", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_HANDSHAKE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, _openssl.engine_name()), done.stderr
