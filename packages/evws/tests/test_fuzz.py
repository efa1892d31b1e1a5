"""The fuzz targets with what was found so far, and with mutations of it: no fuzzer is needed for that."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent / "fuzz"))

from above import TARGETS

TESTS = Path(__file__).resolve().parent

PIECES = (
    b"\r\n",
    b":",
    b",",
    b";",
    b"=",
    b'"',
    b" ",
    b"\0",
    b"\xff",
    b"\x81\x80",
    b"\x80",
    b"\x7e\0\5",
    b"13",
    b"websocket",
)


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((TESTS / "corpus" / name).iterdir())]


def mutated(rng: random.Random, seed: bytes) -> bytes:
    data = bytearray(seed)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                del data[at : at + rng.randint(1, 8)]
            case 1:
                data[at:at] = rng.choice(PIECES)
            case 2:
                data[at:at] = data[at : at + rng.randint(1, 40)]
            case _ if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    seeds = corpus(name)
    assert len(seeds) > 10
    for seed in seeds:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
def test_mutations(name: str) -> None:
    rng = random.Random(6455)
    seeds = corpus(name)
    for _ in range(300 if name == "connection" else 3000):
        TARGETS[name](mutated(rng, rng.choice(seeds)))
