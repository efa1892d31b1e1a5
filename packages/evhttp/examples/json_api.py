"""A JSON API without a framework: a dict is the router.

Try::

curl -d '{"text": "buy tea"}' http://127.0.0.1:8000/notes
curl http://127.0.0.1:8000/notes
curl http://127.0.0.1:8000/notes/1
"""

import json
import re
import sys
from collections.abc import Callable

import evhttp
from evhttp import Request, Response

notes: dict[int, str] = {}


def list_notes(req: Request, res: Response) -> None:
    """Answer GET /notes."""
    res.json([{"id": number, "text": text} for number, text in notes.items()])


def add_note(req: Request, res: Response) -> None:
    """Answer POST /notes."""
    try:
        text = json.loads(req.body)["text"]
    except (ValueError, KeyError, TypeError):
        res.status(400).json({"error": 'a note is {"text": "..."}'})
        return
    number = len(notes) + 1
    notes[number] = str(text)
    res.status(201).header("Location", f"/notes/{number}").json({"id": number})


def show_note(req: Request, res: Response, number: str) -> None:
    """Answer GET /notes/1."""
    text = notes.get(int(number))
    if text is None:
        res.status(404).json({"error": "no such note"})
    else:
        res.json({"id": int(number), "text": text})


# Paths that are fixed are found by one look; those with a part that varies are tried in order.
FIXED: dict[str, dict[str, Callable[[Request, Response], None]]] = {"/notes": {"GET": list_notes, "POST": add_note}}
VARYING: list[tuple[re.Pattern[str], dict[str, Callable[[Request, Response, str], None]]]] = [
    (re.compile(r"/notes/([0-9]{1,9})"), {"GET": show_note})
]


def route(req: Request, res: Response) -> None:
    """Find who answers: 404 if nobody does, 405 if not by this method."""
    path, method = req.path, "GET" if req.method == "HEAD" else req.method
    methods = FIXED.get(path)
    if methods is not None:
        if method in methods:
            methods[method](req, res)
            return
        allowed = ", ".join(methods)
    else:
        for pattern, varying in VARYING:
            if (found := pattern.fullmatch(path)) is not None:
                if method in varying:
                    varying[method](req, res, found[1])
                    return
                allowed = ", ".join(varying)
                break
        else:
            res.status(404).json({"error": "no such path"})
            return
    res.status(405).header("Allow", allowed).json({"error": f"this path knows {allowed}"})


server = evhttp.Server(route).listen("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
print(f"http://127.0.0.1:{server.addresses[0][1]}/notes", flush=True)
server.run()
