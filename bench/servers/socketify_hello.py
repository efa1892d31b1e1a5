"""socketify (uWebSockets through cffi): socketify_hello.py HOST PORT {hello|browser}."""

import sys

from socketify import App, AppListenOptions


def hello(res, req):
    res.end(b"Hello, World!")


def browser(res, req):
    agent = req.get_header("user-agent")
    language = req.get_header("accept-language")
    res.end(b"Hello, World!" if agent and language else b"no such header")


host, port, handler = sys.argv[1:]
app = App(request_response_factory_max_items=200_000)  # its own benchmarks reuse request objects like this
app.get("/", {"hello": hello, "browser": browser}[handler])
app.listen(AppListenOptions(port=int(port), host=host))
app.run()
