"""The fuzz targets, for seconds: their corpora, which reach what the long runs (`nox -s fuzz`) have reached, and mutations.

What a long run finds becomes a file of the corpus, and stays one.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent
SOURCES = TESTS.parent / "src" / "evhttp" / "_c"
PACKAGES = TESTS.parents[1]
PARSER = ("parser.c", "response.c", "reader.c", "fields.c", "target.c", "chunked.c", "scan.c")
IN_C = {
    "request": ("fuzz_parser.c", PARSER),
    "response": ("fuzz_parser.c", PARSER),
    "chunked": ("fuzz_parser.c", PARSER),
    "proxy": ("fuzz_proxy.c", ("proxy.c",)),
}
COMPILER = next(
    (path for name in (os.environ.get("CC", ""), "cc", "gcc") if name and (path := shutil.which(name))), None
)


def corpus(target: str) -> list[bytes]:
    found = [path.read_bytes() for path in sorted((TESTS / "corpus" / target).iterdir())]
    assert found, f"the corpus of {target} is empty"
    return found


def compile_target(program: Path, target: str, *flags: str) -> subprocess.CompletedProcess[str]:
    source, files = IN_C[target]
    includes = [SOURCES, *(PACKAGES / name / "src" / name / "include" for name in ("evloop", "evnet"))]
    words = [
        *flags,
        "-std=c11",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-DFUZZ_STANDALONE",
        f"-DFUZZ_TARGET={target.upper()}",
    ]
    words += [*(f"-I{path}" for path in includes), str(TESTS / "c" / source), *(str(SOURCES / name) for name in files)]
    return subprocess.run([str(COMPILER), *words, "-o", str(program)], capture_output=True, text=True, check=False)


@pytest.mark.skipif(COMPILER is None, reason="no C compiler")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("target", IN_C)
def test_in_c(tmp_path: Path, target: str) -> None:
    program = tmp_path / target
    sanitized = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    if compile_target(program, target, *sanitized).returncode != 0:
        plain = compile_target(program, target, "-O1")
        assert plain.returncode == 0, plain.stderr
        pytest.skip("this compiler has no AddressSanitizer")
    seeds = corpus(target)
    (tmp_path / "corpus").write_bytes(b"".join(len(seed).to_bytes(4, "little") + seed for seed in seeds))
    command = [str(program), "4000", "1", str(tmp_path / "corpus")]
    # A runtime that is preloaded for the interpreter is not for the program, which has its own.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == f"4000 rounds, {len(seeds)} seeds\n"


@pytest.fixture(scope="module")
def above() -> Iterator[Any]:
    """The module of the targets; what they have open is closed."""
    spec = importlib.util.spec_from_file_location("above", TESTS / "fuzz" / "above.py")
    assert spec is not None
    assert spec.loader is not None
    before = set(os.listdir("/proc/self/fd"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    module.close()
    assert len(os.listdir("/proc/self/fd")) <= len(before), "descriptors are left"


BITS = [
    b"\r\n",
    b"\n",
    b"/",
    b"..",
    b"%2e",
    b"%",
    b"\\",
    b"\0",
    b"--b",
    b"--",
    b": ",
    b";",
    b'"',
    b",",
    b"-",
    b"=",
    b"9" * 20,
    b"\xff",
]


def mutated(seed: bytes, chance: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(data))
        match chance.randrange(4):
            case 0:
                data[at:at] = chance.choice(BITS)
            case 1:
                del data[at : at + chance.randint(1, 8)]
            case 2:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case _:
                piece = data[chance.randint(0, len(data)) :][: chance.randint(1, 30)]
                data[at:at] = piece
    return bytes(data)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("name", "rounds"), [("ranges", 3000), ("conditions", 3000), ("multipart", 300), ("static", 1000), ("server", 500)]
)
def test_above_c(above: Any, name: str, rounds: int) -> None:
    target: Callable[[bytes], None] = above.TARGETS[name]
    seeds = corpus(name)
    for seed in seeds:
        target(seed)
    chance = random.Random(1)
    for _ in range(rounds):
        data = mutated(chance.choice(seeds), chance)
        try:
            target(data)
        except BaseException as error:
            error.add_note(f"the input was {data!r}")
            raise


def test_all_are_tested(above: Any) -> None:
    assert sorted(each.name for each in (TESTS / "corpus").iterdir()) == sorted([*IN_C, *above.TARGETS])
