"""mrhttp, one worker: mrhttp_hello.py HOST PORT {hello|browser}."""

import sys

import mrhttp


def hello(req):
    return "Hello, World!"


def browser(req):
    agent = req.headers.get("User-Agent")
    language = req.headers.get("Accept-Language")
    return "Hello, World!" if agent and language else "no such header"


host, port, handler = sys.argv[1:]
app = mrhttp.Application()
app.route("/", _type="text")({"hello": hello, "browser": browser}[handler])
app.run(host, int(port), cores=1)
