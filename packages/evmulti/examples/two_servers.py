"""A form in two servers, as an upstream behind nginx would have them: one shows it, another takes what was filled in.

``python two_servers.py [PORT]`` listens on PORT (default 8080) for GET, without bodies and on the loop's thread, and on PORT + 1
for POST, with twenty threads. nginx sends each method to its own::

    upstream page { server 127.0.0.1:8080; }
    upstream form { server 127.0.0.1:8081; }
    map $request_method $server_for { default page; POST form; }
    server { location / { proxy_pass http://$server_for; } }
"""

import html
import sys
import threading

import evhttp
import evmulti

FORM = """<!doctype html><title>Guests</title>
<form method="post" action="{action}"><input name="name" required> <button>Sign</button></form>
<ul>{guests}</ul>
"""
guests = []
lock = threading.Lock()


def show(req, res):
    """Show the form, and who has signed."""
    if req.method not in ("GET", "HEAD"):
        res.header("Allow", "GET, HEAD").send_error(405)
        return
    names = "".join(f"<li>{html.escape(name)}" for name in list(guests))
    page = FORM.format(action=f"http://127.0.0.1:{port + 1}/", guests=names)
    res.header("Content-Type", "text/html; charset=utf-8").send(page)


def save(req, res):
    """Take a name. This may block: it has a thread for itself."""
    if req.method != "POST":
        res.header("Allow", "POST").send_error(405)
        return
    name = req.form().get("name", "").strip()
    if not name:
        res.send_error(422, "a name is needed")
        return
    with lock:
        guests.append(name)
    res.redirect(f"http://127.0.0.1:{port}/", 303)


port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
small = evhttp.Limits(max_body_size=10_000, body_timeout=10)
evmulti.Services(
    evmulti.Service("page", show, port=port, body="none", keep_headers=["host"]),
    evmulti.Service(
        "form", save, port=port + 1, pool_size=20, limits=small, keep_headers=["host", "content-type"], timeout=10
    ),
).run()
