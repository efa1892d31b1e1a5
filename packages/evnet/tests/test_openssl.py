"""When OpenSSL is called in the turn, and when TLS goes by way of Python."""

from __future__ import annotations

import ssl
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
    return server_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)


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
