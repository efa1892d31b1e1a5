"""A chat with a page for the browser: `python chat.py [host] [port]`, then open the address that it prints in two windows.

Every line goes to everybody, with the name that its sender has chosen in the address of the page (?name=ann). With --selftest two
clients talk to each other, and it ends.
"""

from __future__ import annotations

import json
import sys

import evhttp
import evws

PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>chat</title>
<style>
body { font: 16px sans-serif; max-width: 40em; margin: 2em auto }
#said { border: 1px solid #999; height: 20em; overflow-y: auto; padding: 0.5em }
input { width: 100%; box-sizing: border-box; font: inherit }
</style>
<div id="said" aria-live="polite"></div>
<form id="form"><input id="line" placeholder="say something" autocomplete="off"></form>
<script>
const said = document.getElementById("said"), line = document.getElementById("line");
const socket = new WebSocket(`ws://${location.host}/chat${location.search}`);
function show(text) {
  const paragraph = document.createElement("div");
  paragraph.textContent = text; // never as HTML: others have written it
  said.append(paragraph);
  said.scrollTop = said.scrollHeight;
}
socket.onmessage = event => {
  const { name, text } = JSON.parse(event.data);
  show(`${name}: ${text}`);
};
socket.onclose = () => show("the connection is closed");
function say(text) { socket.send(text); }
document.getElementById("form").onsubmit = event => {
  event.preventDefault();
  if (line.value) say(line.value);
  line.value = "";
};
</script>
</html>
"""

everybody = evws.Group()


def tell(name: str, text: str) -> None:
    """Let everybody read a line."""
    everybody.send(json.dumps({"name": name, "text": text}), timeout=10)


def came(ws: evws.WebSocket) -> None:
    """Take somebody in."""
    everybody.add(ws)
    tell(ws.context, "has come")


def said(ws: evws.WebSocket, text: str) -> None:
    """Pass on what somebody says."""
    tell(ws.context, text[:1000])


def left(ws: evws.WebSocket, code: int, reason: str) -> None:
    """Tell the others."""
    tell(ws.context, "has gone")


def handle(req: evhttp.Request, res: evhttp.Response) -> None:
    """Give out the page, or make a WebSocket of the request."""
    if req.path == "/chat":
        host = req.headers.get("host", "")
        # A page of somebody else's must not speak in the name of who looks at it.
        options = {"origins": [f"http://{host}"], "limits": evws.Limits(max_message_size=4096)}
        ws = evws.upgrade(req, res, on_message=said, on_open=came, on_close=left, **options)  # type: ignore[arg-type]
        if ws is not None:
            ws.context = req.query.get("name", "somebody")[:20]
    elif req.path == "/":
        res.header("Content-Type", "text/html; charset=utf-8").send(PAGE)
    else:
        res.status(404).send("not here\n")


def selftest(server: evhttp.Server) -> None:
    """Let two clients chat."""
    loop = server.loop
    url = "ws://{}:{}/chat?name=".format(*server.addresses[0])

    def heard(ws: evws.WebSocket, message: str) -> None:
        about = json.loads(message)
        print(f"{ws.context} hears {about['name']}: {about['text']}")
        if ws.context == "ann" and about == {"name": "bob", "text": "has come"}:
            ws.send("hello bob")
        elif ws.context == "bob" and about["text"] == "hello bob":
            ws.close()
        elif about == {"name": "bob", "text": "has gone"}:
            ws.close()
            server.close()
            loop.call_later(0.05, loop.stop)

    def join(name: str) -> None:
        def opened(ws: evws.WebSocket) -> None:
            ws.context = name
            if name == "ann":
                join("bob")

        evws.connect(loop, url + name, on_message=heard, on_open=opened)

    join("ann")


def main() -> None:
    """Serve."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--selftest"]
    server = evhttp.Server(handle)
    server.listen(arguments[0] if arguments else "127.0.0.1", int(arguments[1]) if arguments[1:] else 0)
    print("the chat is at http://{}:{}/?name=you".format(*server.addresses[0]), flush=True)
    if "--selftest" in sys.argv:
        server.loop.call_soon(selftest, server)
    server.run()


if __name__ == "__main__":
    main()
