"""`FrameParser` and the frame writer: a table of cases, a plain model, and every way to cut what comes."""

from __future__ import annotations

import platform
import random
import resource
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from framing import BAD, BIG, GOOD, MASK, PING, TEXT, TEXT_BEGIN, masked, model, raw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evws import CloseCode, Frame, FrameParser, Opcode, Violation, encode_close, encode_frame
from evws._shim import ffi, lib

IMPLEMENTATIONS = ["scalar", "neon"] if platform.machine() in ("aarch64", "arm64") else ["scalar", "sse2", "avx2"]
STATM = Path("/proc/self/statm")


@pytest.fixture(params=IMPLEMENTATIONS, autouse=True)
def impl(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each implementation of the kernels that runs here."""
    if lib.evws_kernels_select(request.param.encode()) == ffi.NULL:
        pytest.skip(f"{request.param} does not run on this machine")
    yield request.param
    lib.evws_kernels_select(ffi.NULL)


def feed(data: bytes, cuts: list[int] | None = None, **options: Any) -> list[Frame | Violation]:
    parser = FrameParser(**options)
    pieces = [0, *sorted(cuts or []), len(data)]
    out = [event for start, end in pairwise(pieces) for event in parser.feed(data[start:end])]
    assert parser.ended == (bool(out) and (isinstance(out[-1], Violation) or out[-1].opcode == Opcode.CLOSE))
    return out


def every_cut(data: bytes) -> Iterator[list[int]]:
    """Whole, byte by byte, and at every position; of long input the positions at its ends and some between."""
    yield []
    if len(data) <= 1000:
        yield list(range(1, len(data)))
    yield from (
        [cut] for cut in (*range(1, min(len(data), 40)), *range(max(len(data) - 20, 40), len(data)), len(data) // 2)
    )


@pytest.mark.parametrize(("data", "want"), [pytest.param(d, w, id=f"6455-{i}") for i, d, w in GOOD])
def test_good(data: bytes, want: list[Frame]) -> None:
    for cuts in every_cut(data):
        assert feed(data, cuts) == want


@pytest.mark.parametrize(("data", "want"), [pytest.param(d, w, id=f"6455-{i}") for i, d, w in GOOD])
def test_good_from_a_server(data: bytes, want: list[Frame]) -> None:
    """The same frames without their masks, to a client; and frames with masks are refused by it."""
    plain = b"".join(encode_frame(frame.opcode, frame.payload, fin=frame.fin) for frame in want)
    assert feed(plain, role="client") == want
    refused = feed(data, role="client")
    assert [event.code for event in refused if isinstance(event, Violation)] == [CloseCode.PROTOCOL_ERROR]
    assert "mask" in refused[-1].reason  # type: ignore[union-attr]


@pytest.mark.parametrize(("data", "code"), [pytest.param(d, c, id=f"6455-{i}") for i, d, c in BAD])
def test_bad(data: bytes, code: CloseCode) -> None:
    whole = feed(data)
    assert isinstance(whole[-1], Violation)
    assert whole[-1].code == code
    assert 0 < len(whole[-1].reason) <= 123
    for cuts in every_cut(data):
        assert feed(data, cuts) == whole


@pytest.mark.parametrize(
    ("data", "at"),
    [
        (raw(0x83), 1),
        (raw(0x91), 1),
        (raw(0x09), 1),
        (raw(0x80), 1),
        (raw(TEXT_BEGIN, b"a") + raw(TEXT, b"b"), 8),
        (raw(TEXT, b"a", mask=None), 2),
        (raw(PING, b"a" * 126), 2),
        (raw(TEXT, b"a\xc0bcd"), 8),
        (raw(TEXT, b"\xed\xa0\x80bcd"), 8),
        (raw(TEXT, b"\xf4\x90\x80\x80abc"), 8),
        (raw(TEXT_BEGIN, b"\xf4") + raw(0, b"\x90abc"), 14),
        (raw(TEXT, length=b"\x7e\0\5"), 8),
        (raw(TEXT, length=b"\x7f" + (1 << 40).to_bytes(8, "big")), 14),
    ],
)
def test_the_first_impossible_byte_ends_it(data: bytes, at: int) -> None:
    """RFC 6455 §8.1, and Autobahn's 6.4: at once, not at the end of the frame or the message."""
    parser = FrameParser()
    events = [parser.feed(data[i : i + 1]) for i in range(len(data))]
    assert [i + 1 for i, found in enumerate(events) if any(isinstance(event, Violation) for event in found)] == [at]


def test_limits_are_exact() -> None:
    for size in (0, 1, 125, 126, 65535, 65536, 70000):
        assert feed(raw(TEXT, b"a" * size), max_message_size=size) == [Frame(Opcode.TEXT, b"a" * size)]
        assert feed(raw(TEXT, b"a" * (size + 1)), max_message_size=size)[0].code == BIG  # type: ignore[union-attr]
        assert feed(raw(TEXT, b"a" * (size + 1)), max_frame_size=size)[0].code == BIG  # type: ignore[union-attr]
    fragments = raw(TEXT_BEGIN, b"abc") + raw(0x00, b"de") + raw(PING, b"p" * 125)
    for last, code in ((b"f", None), (b"fg", BIG)):
        events = feed(fragments + raw(0x80, last), max_message_size=6, max_frame_size=3)
        assert [event.code for event in events if isinstance(event, Violation)] == ([code] if code else [])
    # A new message begins to count anew.
    assert len(feed(raw(TEXT, b"abc") * 100, max_message_size=3)) == 100


def test_rsv1_where_it_is_allowed() -> None:
    """RFC 7692 §6: on the first frame of a message. What it marks is not text yet."""
    data = raw(0x41, b"\xff") + raw(PING) + raw(0x80, b"\xff") + raw(TEXT, b"a")
    events = feed(data, compression=True)
    assert [frame.rsv1 for frame in events] == [True, False, False, False]  # type: ignore[union-attr]
    for bad in (raw(0x01, b"a") + raw(0xC0, b"b"), raw(0xC9), raw(0xC8), raw(0x41) + raw(0xC0)):
        last = feed(bad, compression=True)[-1]
        assert isinstance(last, Violation)
        assert last.code == CloseCode.PROTOCOL_ERROR
    plain = feed(data[:7] + raw(0x80, b"\xff") + raw(TEXT, b"\xff"), compression=True)
    assert plain[-1] == Violation(CloseCode.INVALID_DATA, "text is not UTF-8")


@pytest.mark.skipif(not STATM.exists(), reason="no /proc/self/statm here")
def test_memory_grows_with_what_comes() -> None:
    """A header that announces a gigabyte costs nothing. Address space is what is looked at, so that untouched pages count."""

    def megabytes() -> float:
        return int(STATM.read_text().split()[0]) * resource.getpagesize() / 1e6

    parsers = [FrameParser(max_message_size=1 << 40) for _ in range(20)]
    before = megabytes()
    for parser in parsers:
        assert parser.feed(raw(0x82, length=b"\x7f" + (1 << 30).to_bytes(8, "big")) + b"a" * 100) == []
    assert megabytes() - before < 20


def test_other_buffers_and_results_that_stay() -> None:
    parser = FrameParser()
    data = raw(TEXT, b"first") + raw(TEXT, b"second")
    events = [*parser.feed(bytearray(data[:9])), *parser.feed(memoryview(data)[9:]), *parser.feed(b"")]
    parser.feed(raw(TEXT, b"x" * 3000))
    assert events == [Frame(Opcode.TEXT, b"first"), Frame(Opcode.TEXT, b"second")]
    assert type(events[0].payload) is bytes  # type: ignore[union-attr]


@pytest.mark.parametrize("options", [{"role": "both"}, {"max_frame_size": -1}, {"max_message_size": 1 << 63}])
def test_options_that_make_no_sense(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        FrameParser(**options)


# -- against the model ----------------------------------------------------------------------------------------------------------

PIECES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(str.encode),
    st.sampled_from(
        [b"a" * 124, b"b" * 125, b"c" * 126, b"\xc3", b"\xa9", b"\xf0\x9f", b"\x98\x80", b"\xed", b"\xe0\xa0"]
    ),
    st.sampled_from([code.to_bytes(2, "big") for code in (1000, 1004, 3000, 4999, 5000)]),
)
FRAMES = st.builds(
    raw,
    st.one_of(st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88, 0xC1, 0x41]), st.integers(0, 255)),
    PIECES,
    mask=st.one_of(st.binary(min_size=4, max_size=4), st.none()),
)
STREAMS = st.one_of(st.lists(FRAMES, max_size=6).map(b"".join), st.binary(max_size=60))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=400)
@given(data=STREAMS, seed=st.integers(0, 2**32), server=st.booleans(), compression=st.booleans())
def test_against_the_model(data: bytes, seed: int, server: bool, compression: bool) -> None:
    rng = random.Random(seed)
    frame, message = rng.choice([(1 << 20, 1 << 20), (125, 130), (10, 30)])
    want = model(data, mask=server, max_frame=frame, max_message=message, compression=compression)
    options = {
        "role": "server" if server else "client",
        "max_frame_size": frame,
        "max_message_size": message,
        "compression": compression,
    }
    cuts = [rng.randrange(len(data) + 1) for _ in range(rng.randrange(6))]
    got = feed(data, cuts, **options)
    assert [event._replace(reason="") if isinstance(event, Violation) else event for event in got] == want


# -- writing --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "wire"),
    [
        pytest.param(encode_frame(1, "Hello"), "810548656c6c6f", id="6455-5.7 text"),
        pytest.param(encode_frame(1, "Hello", mask=MASK), "818537fa213d7f9f4d5158", id="6455-5.7 masked"),
        pytest.param(
            encode_frame(1, "Hel", fin=False) + encode_frame(0, "lo"), "010348656c80026c6f", id="6455-5.7 fragments"
        ),
        pytest.param(encode_frame(9, b"Hello"), "890548656c6c6f", id="6455-5.7 ping"),
        pytest.param(encode_frame(2, bytes(256))[:4], "827e0100", id="6455-5.7 256 bytes"),
        pytest.param(encode_frame(2, bytes(65536))[:10], "827f0000000000010000", id="6455-5.7 64 KiB"),
        pytest.param(encode_frame(2, bytes(126))[:4], "827e007e", id="6455-5.2 126"),
        pytest.param(encode_frame(2, bytes(65535))[:4], "827effff", id="6455-5.2 65535"),
        pytest.param(encode_frame(1, b"", rsv1=True), "c100", id="7692-6 compressed"),
        pytest.param(encode_frame(8, encode_close(1000, "ok")), "880403e86f6b", id="6455-5.5.1 close"),
        pytest.param(encode_frame(8, encode_close()), "8800", id="6455-5.5.1 empty close"),
    ],
)
def test_writes(frame: bytes, wire: str) -> None:
    assert frame.hex() == wire


@given(payload=st.binary(max_size=300), mask=st.one_of(st.none(), st.binary(min_size=4, max_size=4)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_writes_what_is_read(payload: bytes, mask: bytes | None) -> None:
    wire = encode_frame(Opcode.BINARY, payload, mask=mask)
    assert wire == raw(0x82, payload, mask=mask)
    assert feed(wire, role="client" if mask is None else "server") == [Frame(Opcode.BINARY, payload)]
    if mask is not None:
        assert masked(masked(payload, mask), mask) == payload


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: encode_frame(3), "opcode"),
        (lambda: encode_frame(-1), "opcode"),
        (lambda: encode_frame(9, bytes(126)), "125 bytes, not 126"),
        (lambda: encode_frame(9, fin=False), "whole"),
        (lambda: encode_frame(8, rsv1=True), "uncompressed"),
        (lambda: encode_frame(1, mask=b"abc"), "4 bytes, not 3"),
        (lambda: encode_close(1005), "1005"),
        (lambda: encode_close(-1), "-1"),
        (lambda: encode_close(1 << 40), "close code"),
        (lambda: encode_close(1000, "é" * 62), "not 124"),
        (lambda: encode_close(None, "why"), "needs a code"),
    ],
)
def test_refuses_to_write(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
