"""The conformance tables against a live server, judged by their own http_judge.py: each request whole, and byte by byte.

test_parser_c.py judges the parser alone by the same tables; the rows that we hold to be wrong are listed there, with the sentence
of the RFC that says so.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evhttp import Request, Response

HERE = Path(__file__).resolve().parent


def parser_tests() -> Any:
    spec = importlib.util.spec_from_file_location("parser_tests", HERE / "test_parser_c.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up there
    spec.loader.exec_module(module)
    return module


def answer(req: Request, res: Response) -> None:
    """What the judge expects of a server: 200 to everything, and the body back."""
    res.send(req.body if req.method in ("POST", "PUT", "PATCH") else b"")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("split", ["whole", "byte by byte"])
def test_conformance(serve: Callable[..., Any], tmp_path: Path, split: str) -> None:
    parser = parser_tests()
    folder = parser.conformance_folder()
    if folder is None or not (folder.parent / "http_judge.py").is_file():
        pytest.skip("no conformance tables: set EV_CONFORMANCE to their folder")
    running = serve(answer)
    environment = {name: value for name, value in os.environ.items() if name not in ("V", "TIER", "LD_PRELOAD")}
    # The judge waits IDLE seconds for what might still come on a connection that stays open; many wait at once.
    environment.update(OUT=str(tmp_path / "out.json"), JOBS="200", **({"SPLIT": "1"} if split != "whole" else {}))
    tables = sorted(map(str, folder.glob("*.jsonl")))
    judge = [sys.executable, str(folder.parent / "http_judge.py"), running.address[0], str(running.address[1]), *tables]
    done = subprocess.run(judge, env=environment, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    rows = json.loads((tmp_path / "out.json").read_text())
    assert len(rows) > 500
    failed, excused = [], set()
    for row in rows:
        request = base64.b64decode(row["req"])
        excuse = next((key for key in parser.WRONG if key[:2] == (row["suite"], row["id"]) and key[2] in request), None)
        if row["verdict"] == "pass":
            continue
        if excuse is None:
            failed.append(f"{row['suite']} {row['id']} expect {row['expect']}: {row['detail']} {request[:160]!r}")
        else:
            excused.add(excuse)
    assert failed == []
    running.until(lambda: running.server.connections == 0)
