"""The build of shims, tried on a package of three small files."""

import importlib.util
import os
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from evloop.shimbuild import Shim, _find_kqueue, add_shim, build_shim, check_toolchain

CDEF = "int sum(int a, int b);\n"
HEADER = "int sum(int a, int b);\n"
SOURCE = '#include "shim.h"\nint sum(int a, int b) { return a + b; }\n'


@pytest.fixture(autouse=True)
def no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the flags of the run that this test is part of away from it."""
    for name in [name for name in os.environ if name.startswith("EV_SHIM_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "src" / "tiny" / "_c"
    folder.mkdir(parents=True)
    (folder / "shim.cdef").write_text(CDEF)
    (folder / "shim.h").write_text(HEADER)
    (folder / "sum.c").write_text(SOURCE)
    return tmp_path


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny._shim", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refused(package: Path, **arguments: Any) -> str:
    """Build, and return the message with which that was refused; it is one line."""
    with pytest.raises(SystemExit) as caught:
        build_shim(package, "tiny", **arguments)
    message = str(caught.value)
    assert message.startswith("tiny: ")
    assert "\n" not in message
    return message


def test_builds_a_module_that_calls_the_c_function(package: Path) -> None:
    shim = build_shim(package, "tiny")
    assert load(shim.path).lib.sum(1, 2) == 3
    assert list(package.joinpath("src").rglob("*.so")) == []


def test_compiles_again_only_when_something_changed(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_shim(package, "tiny").path
    written = first.stat().st_mtime_ns
    assert build_shim(package, "tiny").path == first
    assert first.stat().st_mtime_ns == written
    monkeypatch.setenv("EV_SHIM_CFLAGS", "-DOTHER")
    assert build_shim(package, "tiny").path != first
    monkeypatch.delenv("EV_SHIM_CFLAGS")
    (package / "src/tiny/_c/sum.c").write_text(SOURCE.replace("+", "*"))
    changed = build_shim(package, "tiny").path
    assert changed != first
    assert load(changed).lib.sum(3, 4) == 12


def test_includes_the_headers_of_a_lower_package(package: Path) -> None:
    (package / "src/tiny/_c/sum.c").write_text("#include <evloop.h>\n" + SOURCE)
    assert "refused" in refused(package)
    assert build_shim(package, "tiny", needs=["evloop"]).path.is_file()


def test_a_lower_package_that_is_not_installed_is_named(package: Path) -> None:
    assert "install no_such_package first" in refused(package, needs=["no_such_package"])


def test_a_missing_compiler_names_what_to_install(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    message = refused(package)
    assert "'no-such-compiler' was not found" in message
    assert "apt install gcc python3-dev" in message


def test_a_missing_python_h_names_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(
        SystemExit, match=r"^tiny: Python.h of Python 3\.\d+ was not found: `apt install gcc python3-dev`"
    ):
        check_toolchain("tiny")


@pytest.mark.parametrize(
    ("source", "werror", "builds"),
    [
        pytest.param("int broken(", "", False, id="syntax-error"),
        pytest.param("int f(void) { return undeclared(); }", "", False, id="undeclared-function"),
        pytest.param("int f(int unused) { return 0; }", "", True, id="warning"),
        pytest.param("int f(int unused) { return 0; }", "1", False, id="warning-as-error"),
        pytest.param(SOURCE, "1", True, id="what-cffi-generates-has-no-warning-counted"),
    ],
)
def test_what_the_compiler_says_decides(
    package: Path, monkeypatch: pytest.MonkeyPatch, source: str, werror: str, builds: bool
) -> None:
    monkeypatch.setenv("EV_SHIM_WERROR", werror)
    (package / "src/tiny/_c/sum.c").write_text(SOURCE)
    (package / "src/tiny/_c/more.c").write_text(source.replace("sum(", "more_sum("))
    if builds:
        assert build_shim(package, "tiny").path.is_file()
    else:
        assert "the compiler refused the shim" in refused(package)


def test_what_counts_coverage_keeps_what_gcov_reads(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = build_shim(package, "tiny").path
    assert not list(plain.parent.rglob("*.gcno"))
    monkeypatch.setenv("EV_SHIM_COVERAGE", "1")
    counting = build_shim(package, "tiny").path
    assert counting != plain
    assert [path.name for path in counting.parent.rglob("sum.gcno")] == ["sum.gcno"]
    assert load(counting).lib.sum(1, 2) == 3


def test_a_free_threaded_python_gets_a_module_for_its_version_alone(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sysconfig.get_config_var
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: 1 if name == "Py_GIL_DISABLED" else real(name))
    shim = build_shim(package, "tiny")
    assert shim.tag is None
    assert shim.path.name == "_shim" + str(real("EXT_SUFFIX"))
    assert load(shim.path).lib.sum(1, 2) == 3


def test_a_wheel_gets_the_module_from_the_build_folder(package: Path) -> None:
    data: dict[str, Any] = {}
    add_shim(package, "tiny", "standard", data)
    shim = build_shim(package, "tiny")
    assert data.pop("force_include") == {str(shim.path): f"tiny/{shim.path.name}"}
    tag = {"tag": shim.tag} if shim.tag else {"infer_tag": True}
    assert data == {"pure_python": False, **tag}
    assert not (package / "src/tiny" / shim.path.name).exists()


def test_an_editable_install_gets_it_beside_the_python_files(package: Path) -> None:
    data: dict[str, Any] = {}
    add_shim(package, "tiny", "editable", data)
    assert "force_include" not in data
    assert len(list((package / "src/tiny").glob("_shim.*"))) == 1


@pytest.mark.parametrize("folder", ["include", "include/kqueue"])
def test_kqueue_is_found_where_libkqueue_installs_it(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder / "sys").mkdir(parents=True)
    (tmp_path / folder / "sys" / "event.h").write_text("")
    with pytest.raises(SystemExit, match=r"^tiny: EVLOOP_KQUEUE_PREFIX is .*, but lib/libkqueue\.so is not there$"):
        _find_kqueue("tiny", tmp_path)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libkqueue.so").write_text("")
    assert _find_kqueue("tiny", tmp_path) == (tmp_path / folder / "sys" / "event.h", tmp_path / "lib")


def test_a_prefix_without_kqueue_is_refused(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (package / "src" / "tiny").rename(package / "src" / "evloop")
    monkeypatch.setenv("EVLOOP_KQUEUE_PREFIX", str(tmp_path / "nowhere"))
    with pytest.raises(
        SystemExit, match=r"^evloop: EVLOOP_KQUEUE_PREFIX is .*nowhere, but include/sys/event\.h is not there$"
    ):
        build_shim(package, "evloop")


def test_the_tag_admits_every_gil_build_from_3_11_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_platform", lambda: "macosx-11.0-arm64")
    assert Shim(tmp_path, limited_api=True).tag == "cp311-abi3-macosx_11_0_arm64"
    assert Shim(tmp_path, limited_api=False).tag is None
