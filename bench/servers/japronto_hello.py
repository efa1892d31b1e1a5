"""japronto, one worker, on an old Python: japronto_hello.py HOST PORT {hello|browser}."""

import sys

from japronto import Application


def hello(req):
    return req.Response(text="Hello, World!")


def browser(req):
    agent = req.headers.get("User-Agent")
    language = req.headers.get("Accept-Language")
    return req.Response(text="Hello, World!" if agent and language else "no such header")


host, port, handler = sys.argv[1:]
app = Application()
app.router.add_route("/", {"hello": hello, "browser": browser}[handler])
app.run(host, int(port), worker_num=1)
