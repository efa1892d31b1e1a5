"""A request, as it lies in the arena: each property is cut out of it when it is asked for."""

from __future__ import annotations

import os
import socket
from struct import Struct
from typing import TYPE_CHECKING, Any

from evhttp._body import BodyReader, save_body
from evhttp._errors import BodyError
from evhttp._fields import Headers, Query
from evhttp._forms import Multipart, read_form, read_multipart, stream_multipart

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Container

    from evhttp._server import Server
    from evloop import Record

__all__ = ["ParsedRequest", "Request"]

# struct evh_head of layout.h: fields, fields_len, body, body_len, target_len, port, version, family, ip, large_body
_HEAD = Struct("<IIIIIHBB16sQ")
_FIELDS = Struct("<II")
_NO_TOKEN = bytes(8)
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE")
_ABSOLUTE, _HTTP10, _STREAMED = 1 << 9, 1 << 10, 1 << 11
_TRUSTED, _SECURE = 1 << 12, 1 << 13  # of the connection: internal.h


class Request:
    """What a client asks for. It stays valid after the handler has returned. Thread safety: may be read from any thread."""

    __slots__ = ()  # only one base of Exchange can have some

    # Set one by one by Server, without a call: this happens for every request.
    _arena: bytes
    _server: Server
    _record: Record  # target, offset, info, exchange: see request.c

    def _head(self) -> tuple[Any, ...]:
        return _HEAD.unpack_from(self._arena, self._record[1])

    @property
    def method(self) -> str:
        """The method, ``"GET"``; in capitals as methods are, since they are case-sensitive (RFC 9110 §9.1)."""
        method = self._record[2] & 0xFF
        if method < len(_METHODS):
            return _METHODS[method]
        head, offset = self._head(), self._record[1]
        return self._arena[offset + _HEAD.size + head[4] : offset + head[0]].decode("ascii")

    @property
    def target(self) -> str:
        """The request target as received, for example ``"/search?q=1"`` (RFC 9112 §3.2)."""
        start = self._record[1] + _HEAD.size
        return self._arena[start : start + self._head()[4]].decode("ascii")

    @property
    def path(self) -> str:
        """The target's path, percent-encoding left as it is: ``"/a%20b"``. It begins with ``/``, but for ``*`` and CONNECT."""
        _, offset, info, _ = self._record
        length = info >> 32
        if not length:
            return "/" if info & _ABSOLUTE else ""
        start = offset + (info >> 16 & 0xFFFF)
        return self._arena[start : start + length].decode("ascii")

    @property
    def query_string(self) -> str:
        """What follows the ``?`` of the target, undecoded; ``""`` when there is none."""
        _, offset, info, _ = self._record
        start = offset + (info >> 16 & 0xFFFF) + (info >> 32) + 1
        end = offset + _HEAD.size + self._head()[4]
        return self._arena[start:end].decode("ascii")

    @property
    def query(self) -> Query:
        """The parameters of the query string. Made anew at each use."""
        return Query(self.query_string)

    @property
    def headers(self) -> Headers:
        """The header fields. Made anew at each use, which costs little: nothing is parsed yet."""
        arena, offset = self._arena, self._record[1]
        start, length = _FIELDS.unpack_from(arena, offset)
        start += offset
        return Headers(arena, start, start + length)

    @property
    def body(self) -> bytes:
        """The request's body, decoded from chunks where it was chunked; ``b""`` when there is none.

        Raises:
            BodyError: The server streams bodies, and this one was not there when the handler was called; see `read_body`.
        """
        if self._record[2] & _STREAMED:
            raise BodyError("the body is streamed: read it by read_body or save_body")
        head = self._head()
        start = self._record[1] + head[2]
        return self._arena[start : start + head[3]]

    def form(self, *, max_fields: int = 1000, max_field_size: int = 65_536) -> Query:
        """Read the body as an urlencoded form (``application/x-www-form-urlencoded``).

        Args:
            max_fields: Fields at most.
            max_field_size: Characters of a name or value at most.

        Raises:
            BodyError: 415 for a body of another type, 413 beyond a limit. A handler may leave it to the server, which answers so.

        Spec: URL standard §5.1.
        """
        return read_form(self, max_fields, max_field_size)

    def multipart(
        self,
        *,
        folder: str | os.PathLike[str] | None = None,
        max_parts: int = 100,
        max_field_size: int = 65_536,
        max_file_size: int = 1 << 30,
        max_header_size: int = 4096,
    ) -> Multipart:
        """Read the body as a multipart form: fields to memory, files to disk.

        ::

            with req.multipart() as form:
                for upload in form.files:
                    upload.save(f"uploads/{secrets.token_hex(8)}")

        Args:
            folder: Where files are put; ``None``: where the system has its temporary files.
            max_parts: Fields and files together.
            max_field_size: Bytes of a field.
            max_file_size: Bytes of a file. The body as a whole is bounded by ``Limits.max_body_size``.
            max_header_size: Bytes of a header line of a part; there may be eight of them.

        Raises:
            BodyError: 415 for a body of another type, 413 beyond a limit, 400 for what is malformed and for headers beyond their
                limit. A handler may leave it to the server, which answers so.
            OSError: A file cannot be written.

        Spec: RFC 7578, RFC 2046 §5.1.
        """
        return read_multipart(
            self,
            folder=folder,
            max_parts=max_parts,
            max_field_size=max_field_size,
            max_file_size=max_file_size,
            max_header_size=max_header_size,
        )

    def read_multipart(
        self,
        on_end: Callable[[Multipart | None, Exception | None], object],
        *,
        folder: str | os.PathLike[str] | None = None,
        max_parts: int = 100,
        max_field_size: int = 65_536,
        max_file_size: int = 1 << 30,
        max_header_size: int = 4096,
    ) -> BodyReader:
        """Read a multipart form while it comes: its files are on disk, and never more of it in memory than a turn brings.

        ::

            def upload(req, res):
                res.defer()

                def on_end(form, error):
                    if error is not None:
                        raise error  # the server answers with 400, 413 or 500
                    form.files[0].save("uploads/" + secrets.token_hex(8))
                    res.send("thank you")

                req.read_multipart(on_end)

            evhttp.Server(upload, stream_bodies=True)

        Args:
            on_end: Called once: with the form and ``None``, or with ``None`` and the reason, a `BodyError` or an `OSError`, as soon
                as there is one; nothing is left on disk then. The form's files are removed when nothing refers to it any more.
            folder: As for `multipart`, with the limits.
            max_parts: Fields and files together.
            max_field_size: Bytes of a field.
            max_file_size: Bytes of a file.
            max_header_size: Bytes of a header line of a part.

        Returns:
            As `read_body`.

        Raises:
            BodyError: 415 for a body of another type, 400 for a boundary that is none. A handler may leave it to the server.

        Works with buffered bodies, too. Writing to a disk that is slow holds up the loop. Thread safety: loop thread only.
        Spec: RFC 7578, RFC 2046 §5.1.
        """
        return stream_multipart(
            self,
            on_end,
            folder=folder,
            max_parts=max_parts,
            max_field_size=max_field_size,
            max_file_size=max_file_size,
            max_header_size=max_header_size,
        )

    @property
    def is_streamed(self) -> bool:
        """Whether the body has to be read by `read_body`, `save_body` or `read_multipart`. Without a body it is false."""
        return bool(self._record[2] & _STREAMED)

    def read_body(
        self, on_data: Callable[[bytes], object], on_end: Callable[[BodyError | None], object] | None = None
    ) -> BodyReader:
        """Read the body in pieces, as they come. A client that waits to be asked for it (``Expect: 100-continue``) is asked now.

        What is not read stays with the client; a handler that answers without having read a large body ends the connection.

        Args:
            on_data: Called with each piece, none of them empty, from the next turn of the loop on.
            on_end: Called once, with ``None`` when the body is complete, or with the reason why it will never be.

        Returns:
            A reader, whose `pause` and `resume` hold the client back.

        An exception in a callback is logged and, if nothing was sent yet, answered with 500.

        Works with buffered bodies, too. Thread safety: loop thread only.
        """
        return BodyReader(self, on_data, on_end)

    def save_body(
        self, folder: str | os.PathLike[str], on_end: Callable[[str | None, Exception | None], object]
    ) -> BodyReader:
        """Write the body to a new file in ``folder``, as it comes, with never more of it in memory than a turn brings.

        Args:
            folder: Where the file is made, with a random name and mode 0600.
            on_end: Called once: with the file's path and ``None``, or with ``None`` and the reason; there is no file then.

        Raises:
            OSError: The file cannot be made.

        Writing to a disk that is slow or full holds up the loop, or ends with the `OSError`. Thread safety: loop thread only.
        """
        return save_body(self, folder, on_end)

    @property
    def version(self) -> str:
        """``"1.1"`` or ``"1.0"``."""
        return "1.0" if self._record[2] & _HTTP10 else "1.1"

    @property
    def client(self) -> tuple[str, int] | None:
        """Address and port of the client; ``None`` for a unix socket.

        Of a connection from a trusted proxy it is whom that speaks for (see `Server`): the port may be 0 then, for not told.
        """
        if self._record[2] & _TRUSTED:
            client = self._server._proxies.forwarding(self.headers).client
            if client is not None:
                return client
        head = self._head()
        return address(head[7], head[8], head[5])

    @property
    def connection_id(self) -> int:
        """A number for the connection that it came on: no other one has it while that one is open, nor soon after."""
        return connection_of(self._record[3])

    def keep_headers(self, names: Container[str]) -> None:
        """Forget all header fields but those with these names, in lower case, and whatever else the server has read with it.

        For requests that are kept for long: as they come, each holds on to all that was received in one turn of the loop.
        """
        arena, (target, offset, info, token) = self._arena, self._record
        head_size, body_size, _ = body_of(arena, offset)
        values = list(_HEAD.unpack_from(arena, offset))
        start, end = values[0], values[0] + values[1]
        fields = arena[offset + start : offset + end]
        kept = [line for line in fields.split(b"\n")[1:-1] if line.partition(b":")[0].decode("latin-1") in names]
        block = b"\n" + b"".join([line + b"\n" for line in kept])
        values[1] = len(block)
        values[2] = start + len(block)
        body = arena[offset + head_size : offset + head_size + body_size]
        # An Exchange or a ParsedRequest has slots for both.
        self._arena = b"".join((_HEAD.pack(*values), arena[offset + _HEAD.size : offset + start], block, body))  # type: ignore[misc]
        self._record = (target, 0, info, token)  # type: ignore[misc]

    @property
    def scheme(self) -> str:
        """``"https"`` if the client's connection is encrypted, as far as we or a trusted proxy can tell, else ``"http"``."""
        if self._record[2] & _TRUSTED:
            scheme = self._server._proxies.forwarding(self.headers).scheme
            if scheme is not None:
                return scheme
        return "https" if self._record[2] & _SECURE else "http"

    @property
    def host(self) -> str:
        """Whom the client wanted to reach, with the port if it named one: ``"example.org:8080"``; ``""`` when it did not say.

        From the target, where that is a whole URL, else from Host (RFC 9112 §3.3), or what a trusted proxy was asked for. It is
        what the client says: decide nothing by it that matters.
        """
        if self._record[2] & _TRUSTED:
            host = self._server._proxies.forwarding(self.headers).host
            if host is not None:
                return host
        _, _, info, _ = self._record
        if info & _ABSOLUTE:
            authority = self.target[: (info >> 16 & 0xFFFF) - _HEAD.size].partition("://")[2]
            return authority.rpartition("@")[2]
        return self.headers.get("host", "")


class ParsedRequest(Request):
    """A request that came through `RequestParser` and no connection: ``client`` is ``None``."""

    __slots__ = ("_arena", "_record")

    def __init__(self, arena: bytes, info: int) -> None:
        # As layout.h has it.
        self._arena = arena
        self._record = (0, 0, info, _NO_TOKEN)


def connection_of(token: bytes) -> int:
    """The connection of an exchange: evloop.h, EV_TOKEN_BITS."""
    return int.from_bytes(token[:6], "little")


def address(family: int, ip: bytes, port: int) -> tuple[str, int] | None:
    """What a ``struct net_address`` says."""
    if family == 4:
        return socket.inet_ntop(socket.AF_INET, ip[:4]), port
    if family == 6:
        return socket.inet_ntop(socket.AF_INET6, ip), port
    return None


def body_of(arena: bytes, offset: int) -> tuple[int, int, int]:
    """Of the request at ``offset``: the size of what comes before the body, the body's size, and the address of a large one."""
    head = _HEAD.unpack_from(arena, offset)
    return head[2], head[3], head[9]
