"""``python -m evws ws://…``: lines are sent, messages are printed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from evloop import Loop, LoopClosedError
from evws._client import Connecting, connect
from evws._errors import EvWsError
from evws._socket import State, WebSocket

__all__ = ["talk"]


class _Talk:
    """One conversation."""

    def __init__(self, loop: Loop, url: str, options: dict[str, Any], wait: float) -> None:
        self.code = 0
        self._loop = loop
        self._wait = wait
        self._input = b""
        self._ws: WebSocket | None = None
        self._we_close = False
        self._connecting = connect(
            loop,
            url,
            on_message=self._print,
            on_open=self._opened,
            on_close=self._closed,
            on_error=self._failed,
            **options,
        )
        self._connecting.add_done_callback(self._tried)

    def leave(self) -> None:
        """Close the connection, or give it up."""
        self._we_close = True
        if self._ws is None:
            self._connecting.cancel()
            self._loop.stop()
        else:
            self._ws.close()

    def _tried(self, connecting: Connecting) -> None:
        error = None if connecting.cancelled() else connecting.exception()
        if error is not None:
            _say(str(error) or type(error).__name__)
            self.code = 1
            self._loop.stop()

    def _opened(self, ws: WebSocket) -> None:
        self._ws = ws
        if sys.stdin.isatty():
            _say(f"connected{f', speaking {ws.subprotocol}' if ws.subprotocol else ''}; Ctrl-D closes")
        threading.Thread(target=self._read, daemon=True).start()

    def _print(self, ws: WebSocket, message: str | bytes) -> None:
        text = message if isinstance(message, str) else f"<{len(message)} bytes> {message.hex(' ', 2)}"
        try:
            print(text, flush=True)
        except BrokenPipeError:  # nobody reads any more
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the flush at the end
            self.leave()

    def _failed(self, ws: WebSocket, error: Exception) -> None:
        _say(str(error))
        self.code = 3

    def _closed(self, ws: WebSocket, code: int, reason: str) -> None:
        if not self._we_close and self.code == 0:
            _say(f"the server closed the connection with code {code}{f': {reason}' if reason else ''}")
            self.code = 0 if code in (1000, 1001, 1005) else 3
        self._loop.stop()

    def _read(self) -> None:
        """Read the input, in a thread of its own: it may be a file, or a terminal that somebody else uses, too."""
        data = b"x"
        while data:
            try:
                data = os.read(0, 65536)
            except OSError:  # there is none
                data = b""
            try:
                self._loop.call_soon_threadsafe(self._typed, data)
            except LoopClosedError:
                return

    def _typed(self, data: bytes) -> None:
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            self._send(line)
        if not data:
            if self._input:
                self._send(self._input)
            if self._wait:
                self._loop.call_later(self._wait, self.leave)
            else:
                self.leave()

    def _send(self, line: bytes) -> None:
        if self._ws is not None and self._ws.state is State.OPEN:
            self._ws.send(line.removesuffix(b"\r").decode("utf-8", "replace"))


def talk(url: str, options: dict[str, Any], wait: float) -> int:
    """Talk until either side ends it; returns the exit code.

    Args:
        url: To connect to.
        options: As for `connect`.
        wait: Seconds for which messages are still printed after the end of the input.

    Raises:
        ValueError: An option is out of range.
    """
    with Loop() as loop:
        try:
            conversation = _Talk(loop, url, options, wait)
        except EvWsError as error:
            _say(str(error))
            return 1
        loop.add_signal_handler(signal.SIGINT, conversation.leave)
        loop.add_signal_handler(signal.SIGTERM, conversation.leave)
        loop.run()
        return conversation.code


def _say(line: str) -> None:
    print(f"evws: {line}", file=sys.stderr, flush=True)
