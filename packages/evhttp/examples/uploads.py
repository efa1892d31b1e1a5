"""Uploads: a form with files, which are written to disk as they come.

Try: curl -F file=@README.md http://127.0.0.1:8000/
"""

import hashlib
import html
import sys

import evhttp
from evhttp import Multipart, Request, Response

PAGE = """<!DOCTYPE html><title>Upload</title>
<form method=post enctype=multipart/form-data>
<input type=file name=file id=file multiple> <input name=note id=note> <button id=send>Send</button>
</form>
"""


def handler(req: Request, res: Response) -> None:
    """GET is the form; POST tells what has come."""
    res.header("Content-Type", "text/html; charset=utf-8")
    if req.method != "POST":
        res.send(PAGE)
        return
    res.defer()

    def on_end(form: Multipart | None, error: Exception | None) -> None:
        if form is None:
            assert error is not None
            raise error  # the server answers: 400 for what is malformed, 413 for what is too large
        lines = []
        for each in form.files:
            with each.open() as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            lines.append(f"<li>{html.escape(each.filename)}: {each.size} bytes, SHA-256 {digest}")
        note = html.escape(form.fields.get("note", ""))
        res.send(f"<!DOCTYPE html><title>Received</title><ul>{''.join(lines)}</ul><p>{note}</p>\n")

    req.read_multipart(on_end, max_file_size=1_000_000_000)


limits = evhttp.Limits(max_body_size=2_000_000_000)
server = evhttp.Server(handler, stream_bodies=True, limits=limits)
server.listen("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
print(f"http://127.0.0.1:{server.addresses[0][1]}/", flush=True)
server.run()
