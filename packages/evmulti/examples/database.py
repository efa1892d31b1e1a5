"""A handler that blocks on a database, behind a pool: ``python database.py [PORT [FILE]]``.

Each thread of the pool has a connection of its own, opened before its first request and closed at the end. ``POST /notes`` with a
text adds a note, ``GET /notes`` lists the last ten, ``GET /wait`` shows how a handler that waits lends its place to another.
"""

import sqlite3
import sys
import threading

import evhttp
import evmulti

port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
path = sys.argv[2] if len(sys.argv) > 2 else "notes.sqlite3"
local = threading.local()


def open_database():
    """Before the first request of a thread."""
    local.database = sqlite3.connect(path, timeout=5, isolation_level=None)
    local.database.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")


def close_database():
    """When a thread ends."""
    local.database.close()


def handler(req, res):
    """Answer one request, on a thread of the pool."""
    if req.path == "/wait":
        evmulti.suspend(1)  # as for a lock or another server: somebody else runs meanwhile
        res.send("waited\n")
    elif req.path != "/notes":
        res.send_error(404)
    elif req.method == "POST":
        cursor = local.database.execute("INSERT INTO notes (text) VALUES (?)", [req.body.decode(errors="replace")])
        res.status(201).json({"id": cursor.lastrowid})
    else:
        rows = local.database.execute("SELECT id, text FROM notes ORDER BY id DESC LIMIT 10")
        res.json([{"id": number, "text": text} for number, text in rows])


with evmulti.Dispatcher(
    handler,
    name="database",
    pool_size=16,
    max_active=4,
    queue_size=200,
    timeout=10,
    thread_init=open_database,
    thread_exit=close_database,
) as dispatcher:
    evhttp.Server(dispatcher).listen("127.0.0.1", port).run()
