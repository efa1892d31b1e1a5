"""The check that a shim above fits the C interface of this package."""

from __future__ import annotations

import pytest

from evloop import native


def packed(want: tuple[int, int], have: tuple[int, int]) -> int:
    return want[0] << 48 | want[1] << 32 | have[0] << 16 | have[1]


def test_a_fitting_interface_is_silent() -> None:
    native.link("evnet", "2.0.3", 0, "evloop", "2.0.1")


@pytest.mark.parametrize(
    ("want", "have"),
    [((2, 0), (1, 0)), ((1, 3), (1, 2)), ((65535, 65534), (65533, 65532))],
    ids=["major", "minor", "most"],
)
def test_a_mismatch_names_versions_and_the_mending_command(want: tuple[int, int], have: tuple[int, int]) -> None:
    with pytest.raises(ImportError) as caught:
        native.link("evnet", "2.0.3", packed(want, have), "evloop", "2.0.1")
    message = str(caught.value)
    assert "evnet 2.0.3" in message
    assert "evloop 2.0.1" in message
    assert f"{want[0]}.{want[1]}" in message
    assert f"{have[0]}.{have[1]}" in message
    assert "pip install --force-reinstall evloop 'evnet>=2.0'" in message
    assert "\n" not in message


def test_the_table_s_address_stays() -> None:
    assert native.capi_address() == native.capi_address() != 0
