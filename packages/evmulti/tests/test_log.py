"""Log lines say whose they are."""

from __future__ import annotations

import logging
import os

import pytest

from evmulti import Log, LogEntry


def test_each_line_names_server_id_process_and_thread(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "evmulti")
    log = Log("front")
    log.info("listens on %s", "a port")
    (record,) = caplog.records
    assert record.getMessage() == f"front#{log.server_id} [{os.getpid()}/MainThread] listens on a port"
    assert (record.server, record.server_id, record.worker) == ("front", log.server_id, "MainThread")  # type: ignore[attr-defined]


def test_servers_have_ids_of_their_own() -> None:
    assert Log("a").server_id != Log("a").server_id


def test_a_callback_takes_what_its_level_lets_through(caplog: pytest.LogCaptureFixture) -> None:
    entries: list[LogEntry] = []
    log = Log("front", level=logging.WARNING, callback=entries.append)
    log.debug("a")
    log.info("b")
    log.warning("c %d%%", 5)
    try:
        raise ValueError("no")
    except ValueError as error:
        log.exception("d")
        raised = error
    assert entries[1].error is raised
    log.error("100%")
    assert [(entry.level, entry.message) for entry in entries] == [(30, "c 5%"), (40, "d"), (40, "100%")]
    assert caplog.records == []


def test_a_callback_that_fails_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(entry: LogEntry) -> None:
        raise OSError("disk full")

    Log("front", callback=fail).error("important")
    assert "important" in caplog.text
    assert "disk full" in caplog.text
