"""What perf says becomes shares by what the code belongs to."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from profiles import part_of, read_report

REPORT = """\
# Samples: 10  of event 'cpu-clock'
#
# Overhead\tSamples\tShared Object\tSymbol
 50.00%\t5\t[kernel.kallsyms]\t[k] tcp_ack
 20.00%\t2\tpython3.11\t[.] _PyEval_EvalFrameDefault
 10.00%\t1\t_shim.abi3.so\t[.] net__write
 10.00%\t1\tpython3.11\t[.] 0x00000000001edf19
 10.00%\t1\t_json.cpython-311-x86_64-linux-gnu.so\t[.] encoder_call
"""


def test_shares_add_up_and_the_nameless_are_counted_but_not_named() -> None:
    profile = read_report(REPORT.splitlines())
    assert profile.samples == 10
    assert profile.parts == {
        "kernel": 50.0,
        "interpreter": 30.0,
        "our C": 10.0,
        "_json.cpython-311-x86_64-linux-gnu.so": 10.0,
    }
    assert profile.functions[:2] == [("tcp_ack", 50.0), ("_PyEval_EvalFrameDefault", 20.0)]
    assert len(profile.functions) == 4
    assert profile.text().startswith("kernel 50%, interpreter 30%, our C 10%")


def test_parts() -> None:
    assert [
        part_of(name) for name in ("libpython3.12.so.1.0", "libc-2.36.so", "[vdso]", "libssl.so.3", "uvloop.so")
    ] == [
        "interpreter",
        "libc",
        "libc",
        "OpenSSL",
        "uvloop.so",
    ]
