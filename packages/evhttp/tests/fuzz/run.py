"""Run a target of ``above.py`` under atheris: run.py TARGET [options of libFuzzer] CORPUS..."""

from __future__ import annotations

import sys

import atheris

sys.dont_write_bytecode = True
with atheris.instrument_imports(include=["evhttp", "multipart", "above"]):
    import multipart  # noqa: F401 - evhttp imports it when the first form comes, which is too late here
    from above import TARGETS

name = sys.argv.pop(1)
sys.argv[0] = (
    f"{sys.executable} {__file__} {name}"  # libFuzzer starts it again, through a shell, when it merges corpora
)
atheris.Setup(sys.argv, TARGETS[name])
atheris.Fuzz()
