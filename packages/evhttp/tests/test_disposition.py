"""Content-Disposition, by a table."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evhttp._disposition import attachment


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("a.txt", 'attachment; filename="a.txt"'),
        ("two words.txt", 'attachment; filename="two words.txt"'),
        ("na\u00efve.txt", "attachment; filename=\"na_ve.txt\"; filename*=UTF-8''na%C3%AFve.txt"),
        ("\u20ac rates", "attachment; filename=\"_ rates\"; filename*=UTF-8''%E2%82%AC%20rates"),
        ('a"b', "attachment; filename=\"a_b\"; filename*=UTF-8''a%22b"),
        ("50%.txt", "attachment; filename=\"50_.txt\"; filename*=UTF-8''50%25.txt"),
        ("a\r\nX: y", "attachment; filename=\"a__X: y\"; filename*=UTF-8''a%0D%0AX%3A%20y"),
        ("\ud800.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%3F.txt"),
        ("/etc/passwd", 'attachment; filename="passwd"'),
        ("C:\\a\\b.txt", 'attachment; filename="b.txt"'),
        (".hidden", 'attachment; filename=".hidden"'),
        ("a'b;c=d", 'attachment; filename="a\'b;c=d"'),
    ],
)
def test_attachment(name: str, want: str) -> None:
    assert attachment(name) == want


@pytest.mark.parametrize("name", ["", ".", "..", "a/", "a/..", "\\"])
def test_no_file_name(name: str) -> None:
    with pytest.raises(ValueError, match="a file name was expected"):
        attachment(name)


@given(st.text(min_size=1, max_size=30))
def test_any_name_comes_back(name: str) -> None:
    if "/" in name or "\\" in name or name in (".", ".."):
        return
    text = attachment(name)
    assert text.isascii() and text.isprintable()
    _, star, encoded = text.partition("filename*=UTF-8''")
    if star:
        assert unquote(encoded) == name.encode("utf-8", "replace").decode()
    else:
        assert text == f'attachment; filename="{name}"'
