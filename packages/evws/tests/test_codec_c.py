"""The codec's C files by themselves: every kernel against plain Python, and the fuzz target's invariants under the sanitizers.

The sources are compiled here, with the driver in ``c/``, into a shared object of their own. The driver presents every input in
memory that ends, and begins, at a page that cannot be read.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import platform
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from framing import BAD, GOOD, is_text, masked

TESTS = Path(__file__).resolve().parent
SOURCES = TESTS.parent / "src" / "evws" / "_c"
FILES = [SOURCES / f"{name}.c" for name in ("feeder", "frame", "close", "utf8", "kernels")]
FILES += sorted(SOURCES.glob("kernels_*.c"))
COMPILER = next(
    (path for name in (os.environ.get("CC", ""), "cc", "gcc", "clang") if name and (path := shutil.which(name))), None
)
IMPLEMENTATIONS = ["scalar", "neon"] if platform.machine() in ("aarch64", "arm64") else ["scalar", "sse2", "avx2"]
BAD_TEXT, OPEN_TEXT, WHOLE_TEXT = range(3)

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


def compile_c(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert COMPILER is not None
    flags = ["-std=c11", "-g", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}"]
    # A sanitizer's runtime, preloaded for this interpreter, is not for the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return subprocess.run(
        [COMPILER, *flags, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("codec") / "codec_driver.so"
    # -Wno-unused-function: the driver has what only the fuzz target calls.
    flags = ("-O2", "-shared", "-fPIC", "-Wno-unused-function")
    done = compile_c(*flags, TESTS / "c" / "codec_driver.c", *FILES, "-o", path)
    assert done.returncode == 0, done.stderr
    loaded = ctypes.CDLL(str(path))
    loaded.drv_ascii.restype = ctypes.c_size_t
    loaded.evw_kernels_select.restype = ctypes.c_char_p
    return loaded


@pytest.fixture(params=IMPLEMENTATIONS)
def driver(request: pytest.FixtureRequest, library: ctypes.CDLL) -> Iterator[ctypes.CDLL]:
    """The driver, with each implementation of the kernels that runs here."""
    if library.evw_kernels_select(request.param.encode()) is None:
        pytest.skip(f"{request.param} does not run on this machine")
    yield library
    library.evw_kernels_select(None)


LENGTHS = (*range(200), 255, 256, 257, 1000, 4095, 4096, 4097, 65536)


def test_mask(driver: ctypes.CDLL) -> None:
    """Each length, to another place and in place, and whether a byte beyond ASCII came out, wherever it is."""
    rng = random.Random(1)
    for length in LENGTHS:
        key = rng.randbytes(4)
        for kind in range(3):
            plain = bytearray(rng.choices(range(128), k=length) if kind else rng.randbytes(length))
            if kind == 2 and length:
                plain[rng.randrange(length)] |= 0x80
            out = ctypes.create_string_buffer(length + 1)
            number = ctypes.c_uint32(int.from_bytes(key, "little" if is_little() else "big"))
            high = driver.drv_mask(masked(bytes(plain), key), ctypes.c_size_t(length), number, out)
            assert out.raw[:length] == plain
            assert high == any(byte > 127 for byte in plain)


def is_little() -> bool:
    return bytes(ctypes.c_uint32(1))[0] == 1


def test_ascii(driver: ctypes.CDLL) -> None:
    """Each distance to the first byte that is not ASCII, and none."""
    rng = random.Random(2)
    for length in range(150):
        text = bytes(rng.choices(range(128), k=length))
        for right in (0, 1):
            assert driver.drv_ascii(text, ctypes.c_size_t(length), right) == length
            for at in range(length):
                other = text[:at] + bytes([rng.randrange(128, 256)]) + text[at + 1 :]
                assert driver.drv_ascii(other, ctypes.c_size_t(length), right) == at


def utf8(driver: ctypes.CDLL, text: bytes, stride: int = 1) -> tuple[int, int]:
    bad_at = ctypes.c_size_t()
    result = driver.drv_utf8(text, ctypes.c_size_t(len(text)), ctypes.c_size_t(stride), ctypes.byref(bad_at))
    assert result != -1, text
    return result, bad_at.value


def check_utf8(driver: ctypes.CDLL, text: bytes, stride: int = 1) -> None:
    """As Python's decoder judges it, and the first byte with which nothing can begin any more is the one that is noticed."""
    result, bad_at = utf8(driver, text, stride)
    assert result == (WHOLE_TEXT if is_text(text, True) else OPEN_TEXT if is_text(text, False) else BAD_TEXT)
    if result == BAD_TEXT:
        assert is_text(text[:bad_at], False)
        assert not is_text(text[: bad_at + 1], False)


def test_utf8_of_every_character(driver: ctypes.CDLL) -> None:
    for plane in range(17):
        points = (point for point in range(plane << 16, (plane + 1) << 16) if not 0xD800 <= point < 0xE000)
        assert utf8(driver, "".join(map(chr, points)).encode(), 65521)[0] == WHOLE_TEXT


def test_utf8_of_every_short_sequence(library: ctypes.CDLL) -> None:
    """All two bytes, and all longer ones made of the values where the rules change."""
    edges: tuple[int, ...] = (0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF)
    edges = (*edges, 0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF)
    library.evw_kernels_select(None)
    for pair in itertools.product(range(256), repeat=2):
        check_utf8(library, bytes(pair))
    for length in (3, 4):
        for sequence in itertools.product(edges, repeat=length):
            if sequence[0] >= 0xC2:
                check_utf8(library, bytes(sequence), 2)


def test_utf8_of_mixed_text(driver: ctypes.CDLL) -> None:
    """Runs of ASCII of each length between other characters, whole and damaged."""
    rng = random.Random(3)
    for _ in range(300):
        text = bytearray()
        for _ in range(rng.randrange(1, 5)):
            text += (
                b"a" * rng.randrange(70)
                + chr(rng.choice((0x7F, 0x80, 0x7FF, 0x800, 0xFFFD, 0x10000, 0x10FFFF))).encode()
            )
        if rng.random() < 0.6:
            text[rng.randrange(len(text))] = rng.randrange(256)
        check_utf8(driver, bytes(text))


def test_select(library: ctypes.CDLL) -> None:
    best = library.evw_kernels_select(None)
    assert best.decode() in IMPLEMENTATIONS
    assert library.evw_kernels_select(b"no such") is None
    assert library.evw_kernels_select(b"scalar") == b"scalar"
    assert library.evw_kernels_select(None) == best


@pytest.mark.timeout(120)
def test_mutations_under_sanitizers(tmp_path: Path) -> None:
    """fuzz_frames.c's invariants on mutated cases, with a fixed seed; longer runs are for libFuzzer (`nox -s fuzz`)."""
    program, corpus = tmp_path / "fuzz_frames", tmp_path / "corpus"
    flags = [
        "-O1",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-DEVW_STANDALONE",
        "-Wno-unused-function",
    ]
    target = TESTS / "c" / "fuzz_frames.c"
    if compile_c(*flags, target, *FILES, "-o", program).returncode != 0:
        plain = compile_c("-DEVW_STANDALONE", "-Wno-unused-function", target, *FILES, "-o", program)
        assert plain.returncode == 0, plain.stderr
        pytest.skip("this compiler has no AddressSanitizer")
    seeds = [case[1] for table in (GOOD, BAD) for case in table if len(case[1]) < 2000]
    corpus.write_bytes(b"".join(len(seed).to_bytes(2, "little") + seed for seed in seeds))
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [program, "20000", "1", corpus], capture_output=True, text=True, timeout=110, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == f"20000 rounds, {len(seeds)} seeds\n"
