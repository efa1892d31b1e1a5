"""Run a target of ``above.py`` under atheris: run.py TARGET [options of libFuzzer] CORPUS..."""

from __future__ import annotations

import sys

import atheris

sys.dont_write_bytecode = True
with atheris.instrument_imports(include=["evws", "above"]):
    from above import TARGETS

name = sys.argv.pop(1)
atheris.Setup(sys.argv, TARGETS[name])
atheris.Fuzz()
