"""Forms: urlencoded and multipart, by requests that came through the parser alone, and through a server."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evhttp import Limits, Multipart, Request, RequestParser, Response
from evhttp._errors import BodyError
from evhttp._forms import MultipartReader

pytest.importorskip("multipart", reason="the library that evhttp requires is not installed here")

URLENCODED = "application/x-www-form-urlencoded"
TYPE = "multipart/form-data; boundary=xyz"


def request(body: bytes, content_type: str) -> Request:
    parser = RequestParser(Limits(max_body_size=1 << 24))
    head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    assert parser.feed(head.encode("latin-1") + body), parser.error
    return parser.request


def part(name: str, content: bytes, filename: str | None = None, more: str = "") -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    return f'--xyz\r\nContent-Disposition: form-data; name="{name}"{file}\r\n{more}\r\n'.encode() + content + b"\r\n"


END = b"--xyz--\r\n"


# -- urlencoded ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "want"),
    [
        (b"", []),
        (b"a=b", [("a", "b")]),
        (b"a=1&b=2&a=3", [("a", "1"), ("b", "2"), ("a", "3")]),
        (b"a+b=c%20d%2B", [("a b", "c d+")]),
        (b"a&b=", [("a", ""), ("b", "")]),
        (b"a=%C3%A9", [("a", "\u00e9")]),
        (b"a=%FF", [("a", "\ufffd")]),
        (b"a=b=c", [("a", "b=c")]),
        (b"&&a=b&", [("a", "b")]),
        (b"a=b;c=d", [("a", "b;c=d")]),
    ],
)
def test_form(body: bytes, want: list[tuple[str, str]]) -> None:
    assert request(body, URLENCODED).form().items() == want
    assert request(body, "Application/X-WWW-form-urlencoded ; charset=utf-8").form().items() == want


def test_limits_of_forms() -> None:
    assert len(request(b"&".join([b"a=b"] * 5), URLENCODED).form(max_fields=5).items()) == 5
    with pytest.raises(BodyError, match="the form has 6 fields, limit is 5") as caught:
        request(b"&".join([b"a=b"] * 6), URLENCODED).form(max_fields=5)
    assert caught.value.status == 413
    assert request(b"a=12345", URLENCODED).form(max_field_size=5)["a"] == "12345"
    for body in (b"a=123456", b"123456=a"):
        with pytest.raises(BodyError, match="has 6 characters, limit is 5") as caught:
            request(body, URLENCODED).form(max_field_size=5)
        assert caught.value.status == 413
    with pytest.raises(BodyError, match="expected a body of the type") as caught:
        request(b"a=b", "text/plain").form()
    assert caught.value.status == 415


# -- multipart -------------------------------------------------------------------------------------------------------------------


def test_fields_and_files(tmp_path: Path) -> None:
    body = (
        part("title", "caf\u00e9".encode())
        + part("file", b"content\r\n--xy", "a.txt", "Content-Type: Text/Plain; charset=utf-8\r\n")
        + part("title", b"")
        + part("file", b"", "empty.bin")
        + END
    )
    with request(body, TYPE).multipart(folder=tmp_path) as form:
        assert form.fields.items() == [("title", "caf\u00e9"), ("title", "")]
        first, second = form.files
        assert (first.name, first.filename, first.content_type, first.size) == ("file", "a.txt", "text/plain", 13)
        assert (second.filename, second.content_type, second.size) == ("empty.bin", None, 0)
        assert form.file("file") is first and form.file("other") is None
        with first.open() as file:
            assert file.read() == b"content\r\n--xy"
        assert stat.S_IMODE(os.stat(first.path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(os.path.dirname(first.path)).st_mode) == 0o700
        assert "a.txt" not in first.path
        first.save(tmp_path / "kept")
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"content\r\n--xy"
    form.close()


def test_files_go_with_the_form(tmp_path: Path) -> None:
    form = request(part("f", b"x", "f") + END, TYPE).multipart(folder=tmp_path)
    assert len(os.listdir(tmp_path)) == 1
    del form
    assert os.listdir(tmp_path) == []
    request(part("f", b"x") + END, TYPE).multipart(folder=tmp_path / "none")  # no file, no folder


@pytest.mark.parametrize(
    ("filename", "want"),
    [
        ("a b.txt", "a b.txt"),
        ("../../etc/passwd", "passwd"),
        ("C:\\\\Users\\\\me\\\\photo.jpg", "photo.jpg"),
        ("..", "unnamed"),
        (".", "unnamed"),
        ("", "unnamed"),
        ("a/", "unnamed"),
        ("a\tb", "ab"),
        ("\u202egpj.exe", "gpj.exe"),
        ("\u00e9\u4e2d.txt", "\u00e9\u4e2d.txt"),
    ],
)
def test_names_of_files(tmp_path: Path, filename: str, want: str) -> None:
    form = request(part("f", b"x", filename) + END, TYPE).multipart(folder=tmp_path)
    assert form.files[0].filename == want
    assert Path(form.files[0].path).parent.parent == tmp_path


LIMITS: list[tuple[str, bytes, dict[str, int], int]] = [
    ("parts", part("a", b"") * 4 + END, {"max_parts": 3}, 413),
    ("field", part("a", b"1234") + END, {"max_field_size": 3}, 413),
    ("file", part("a", b"1234", "f") + END, {"max_file_size": 3}, 413),
    ("header line", part("a", b"", None, f"X: {'y' * 200}\r\n") + END, {"max_header_size": 100}, 400),
]


@pytest.mark.parametrize(("body", "limits", "status"), [pytest.param(*row[1:], id=row[0]) for row in LIMITS])
def test_limits_of_multipart(tmp_path: Path, body: bytes, limits: dict[str, int], status: int) -> None:
    for data in (body, part("first", b"", "first") + body):
        more = {name: value + 200 for name, value in limits.items()}
        request(data, TYPE).multipart(folder=tmp_path, **more).close()
        with pytest.raises(BodyError) as caught:
            request(data, TYPE).multipart(folder=tmp_path, **limits)
        assert caught.value.status == status
        assert os.listdir(tmp_path) == [], "what had come is removed"


BAD = [
    ("empty", b""),
    ("no boundary", b"hello"),
    ("no end", part("a", b"b")),
    ("ends in a header", b"--xyz\r\nContent-Disp"),
    ("no header", b"--xyz\r\n\r\nx\r\n" + END),
    ("no name", b"--xyz\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END),
    ("empty name", part("", b"x") + END),
    ("not form-data", b'--xyz\r\nContent-Disposition: attachment; name="a"\r\n\r\nx\r\n' + END),
    ("bare LF", b'--xyz\nContent-Disposition: form-data; name="a"\n\nx\n--xyz--\n'),
    ("something behind a boundary", b"--xyzzy\r\n" + part("a", b"") + END),
    ("a header of other bytes", b'--xyz\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n' + END),
    ("a field of other bytes", part("a", b"\xff") + END),
    ("nine headers", part("a", b"", None, "X: y\r\n" * 8) + END),
]


@pytest.mark.parametrize("body", [pytest.param(row[1], id=row[0]) for row in BAD])
def test_malformed_multipart(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(BodyError) as caught:
        request(body, TYPE).multipart(folder=tmp_path)
    assert caught.value.status == 400
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("text/plain", 415),
        (URLENCODED, 415),
        ("multipart/mixed; boundary=xyz", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        (f"multipart/form-data; boundary={'x' * 71}", 400),
        ('multipart/form-data; boundary="a\xe9"', 400),
        ('multipart/form-data; boundary="a "', 400),
    ],
)
def test_types_that_are_no_form(content_type: str, status: int) -> None:
    with pytest.raises(BodyError) as caught:
        request(part("a", b"") + END, content_type).multipart()
    assert caught.value.status == status


def reader(folder: Path, **limits: int) -> MultipartReader:
    bounds = {"max_parts": 50, "max_field_size": 1000, "max_file_size": 100_000, "max_header_size": 500, **limits}
    return MultipartReader(TYPE, folder=folder, **bounds)


def test_a_body_may_be_cut_anywhere(tmp_path: Path) -> None:
    body = part("a", b"1\r\n-") + part("f", b"\r\n--xy\r\n\r\n--xyy", "n") + part("b", b"2") + END
    body = b"before --xyz--\r\n --xyz\r\n-" + b"before\r\n" + body + b"behind"  # RFC 2046 §5.1.1: to be ignored
    for cut in range(len(body)):
        each = reader(tmp_path)
        each.feed(body[:cut])
        each.feed(body[cut:])
        form = each.finish()
        assert form.fields.items() == [("a", "1\r\n-"), ("b", "2")]
        with form.files[0].open() as file:
            assert file.read() == b"\r\n--xy\r\n\r\n--xyy"
        form.close()


def test_a_header_line_of_just_the_limit_may_be_cut_too(tmp_path: Path) -> None:
    body = part("a", b"1") + END
    limit = len('Content-Disposition: form-data; name="a"')
    for cut in range(len(body)):
        each = reader(tmp_path, max_header_size=limit)
        each.feed(body[:cut])
        each.feed(body[cut:])
        assert each.finish().fields.items() == [("a", "1")]
        assert refusal(reader(tmp_path, max_header_size=limit - 1), body[:cut], body[cut:]) == 400


def refusal(reader: MultipartReader, *pieces: bytes) -> int:
    try:
        for piece in pieces:
            reader.feed(piece)
        reader.finish()
    except BodyError as error:
        return error.status
    return 200


@pytest.mark.parametrize("lone", [b"\n", b"\r", b"\n\r"])
@pytest.mark.parametrize("behind", [b'name="a"', b"Content"])
def test_a_lone_line_break_in_a_header_is_refused_wherever_it_is_cut(
    tmp_path: Path, lone: bytes, behind: bytes
) -> None:
    body = part("a", b"1").replace(behind, behind + lone) + END
    assert {refusal(reader(tmp_path), body[:cut], body[cut:]) for cut in range(len(body))} == {400}


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_bytes_are_a_form_or_an_error_and_nothing_stays(
    tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    folder = tmp_path_factory.mktemp("any")
    pieces = [part("a", b"b"), part("f", b"content", "n"), END, b"--xyz", b"\r\n", b"\n", b"--", b": ", b"\xff", b"\0"]
    body = b"".join(data.draw(st.lists(st.one_of(st.sampled_from(pieces), st.binary(max_size=5)), max_size=12)))
    each = reader(folder)
    form: object = None
    try:
        for at in range(0, len(body), size := data.draw(st.integers(1, 40))):
            each.feed(body[at : at + size])
        form = each.finish()
    except BodyError as refused:
        form = refused
    if isinstance(form, Multipart):
        form.close()
    else:
        assert isinstance(form, BodyError) and form.status in (400, 413)
    assert os.listdir(folder) == []


def test_a_large_file(tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 3
    with request(part("f", content, "n") + END, TYPE).multipart(folder=tmp_path) as form:
        with form.files[0].open() as file:
            assert file.read() == content


def test_another_library_of_that_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "multipart", ModuleType("multipart"))
    with pytest.raises(ImportError, match="python-multipart"):
        reader(tmp_path)


def test_through_a_server(serve: Callable[..., Any], tmp_path: Path) -> None:
    def handler(req: Request, res: Response) -> None:
        if req.path == "/form":
            res.header("X-Kept", "no").send(repr(req.form(max_fields=2).items()))
            return
        form = req.multipart(folder=tmp_path, max_file_size=100)
        assert len(os.listdir(tmp_path)) == 1
        res.send(f"{form.files[0].size}")

    client = serve(handler).connect()

    def post(path: str, body: bytes, content_type: str) -> Any:
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        client.send(head.encode() + body)
        return client.answer()

    assert post("/form", b"a=b&c=d", URLENCODED).body == b"[('a', 'b'), ('c', 'd')]"
    answer = post("/form", b"a&b&c", URLENCODED)
    assert (answer.status, answer.body) == (413, b"the form has 3 fields, limit is 2\n")
    assert post("/form", b"a", "text/plain").status == 415
    assert post("/", part("f", b"x" * 100, "n") + END, TYPE).body == b"100"
    assert os.listdir(tmp_path) == [], "removed when the request has ended"
    assert post("/", part("f", b"x" * 101, "n") + END, TYPE).status == 413
    assert post("/", part("f", b"x", "n"), TYPE).status == 400
    assert os.listdir(tmp_path) == []


# -- while it comes --------------------------------------------------------------------------------------------------------------


def streaming(folder: Path, ends: list[Exception | None], **limits: int) -> Callable[[Request, Response], None]:
    def handler(req: Request, res: Response) -> None:
        res.defer()

        def on_end(form: Multipart | None, error: Exception | None) -> None:
            ends.append(error)
            if form is None:
                assert error is not None
                assert os.listdir(folder) == []
                raise error
            res.send(repr((form.fields.items(), [(each.filename, each.size) for each in form.files])))

        req.read_multipart(on_end, folder=folder, **limits)

    return handler


def head_of(body_size: int, content_type: str = TYPE) -> bytes:
    return f"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nContent-Length: {body_size}\r\n\r\n".encode()


@pytest.mark.parametrize("streamed", [True, False])
def test_a_form_that_is_read_while_it_comes(serve: Callable[..., Any], tmp_path: Path, streamed: bool) -> None:
    ends: list[Exception | None] = []
    limits = Limits(max_body_size=1 << 24)
    running = serve(streaming(tmp_path, ends), stream_bodies=streamed, limits=limits)
    client = running.connect()
    content = os.urandom(3 << 20)
    body = part("a", b"b") + part("f", content, "n") + END
    want = repr(([("a", "b")], [("n", len(content))])).encode()
    for _ in range(2):  # the connection goes on
        answer = client.send(head_of(len(body)) + body).answer()
        assert (answer.status, answer.body) == (200, want)
        running.until(lambda: os.listdir(tmp_path) == [])
    small = part("a", b"b") + END
    client.send(head_of(len(small)))
    for at in range(len(small)):
        client.send(small[at : at + 1])
    assert client.answer().body == repr(([("a", "b")], [])).encode()
    assert ends == [None] * 3


def test_files_are_on_disk_while_the_rest_is_with_the_client(serve: Callable[..., Any], tmp_path: Path) -> None:
    ends: list[Any] = []
    running = serve(streaming(tmp_path, ends), stream_bodies=True, limits=Limits(max_body_size=1 << 24))
    client = running.connect()
    begin = part("f", b"x" * 100_000, "n")[:-2]
    client.send(head_of(len(begin) + 1000) + begin)

    def size() -> int:
        return sum(each.stat().st_size for each in tmp_path.glob("*/*"))

    running.until(lambda: size() >= 99_000)
    assert ends == []
    client.reset()
    running.until(lambda: os.listdir(tmp_path) == [])
    assert isinstance(ends[0], BodyError)
    assert len(ends) == 1


@pytest.mark.parametrize(
    ("body", "limits", "status"),
    [
        (part("f", b"x" * 101, "n") + END, {"max_file_size": 100}, 413),
        (part("f", b"x" * 101) + END, {"max_field_size": 100}, 413),
        (part("a", b"") * 3 + END, {"max_parts": 2}, 413),
        (b"--xyz\r\nno header\r\n\r\n" + END, {}, 400),
    ],
)
@pytest.mark.parametrize("rest", [0, 1 << 20], ids=["complete", "more to come"])
def test_a_refused_form(
    serve: Callable[..., Any], tmp_path: Path, body: bytes, limits: dict[str, int], status: int, rest: int
) -> None:
    ends: list[Any] = []
    running = serve(streaming(tmp_path, ends, **limits), stream_bodies=True, limits=Limits(max_body_size=1 << 24))
    client = running.connect()
    client.send(head_of(len(body) + rest) + body)
    assert client.answer().status == status
    assert len(ends) == 1
    running.until(lambda: os.listdir(tmp_path) == [])
    if not rest:
        assert client.send(head_of(len(END)) + END).answer().status == 200


def test_a_form_without_its_end(serve: Callable[..., Any], tmp_path: Path) -> None:
    ends: list[Any] = []
    running = serve(streaming(tmp_path, ends), stream_bodies=True)
    body = part("f", b"x", "n")
    assert running.connect().send(head_of(len(body)) + body).answer().status == 400
    assert len(ends) == 1
    running.until(lambda: os.listdir(tmp_path) == [])


def test_another_type_while_it_comes(serve: Callable[..., Any], tmp_path: Path) -> None:
    client = serve(streaming(tmp_path, []), stream_bodies=True).connect()
    assert client.send(head_of(2, "text/plain") + b"ab").answer().status == 415


def test_a_full_disk(serve: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Any) -> None:
    def full(self: object, data: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("evhttp._forms.MultipartReader._add", full)
    ends: list[Any] = []
    running = serve(streaming(tmp_path, ends), stream_bodies=True)
    body = part("f", b"x", "n") + END
    assert running.connect().send(head_of(len(body)) + body).answer().status == 500
    assert [type(each) for each in ends] == [OSError]
    assert [record.getMessage() for record in logged.take()] == ["exception in the handler for POST /"]
