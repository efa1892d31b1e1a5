"""HTTP and WebSocket on one port, the second only with a password: `python one_port.py [host] [port]`.

With --selftest both are asked, with the password and without, and it ends.
"""

from __future__ import annotations

import hmac
import sys
import threading
import urllib.request

import evhttp
import evws

PASSWORD = "swordfish"


def handle(req: evhttp.Request, res: evhttp.Response) -> None:
    """Answer a request, or make a WebSocket of it."""
    if req.path != "/ws":
        res.send(f"hello {req.query.get('name', 'world')}\n")
    elif not hmac.compare_digest(req.headers.get("authorization", ""), f"Bearer {PASSWORD}"):
        res.status(401).header("WWW-Authenticate", "Bearer").send("who are you?\n")
    else:
        evws.upgrade(req, res, on_message=lambda ws, message: ws.send(message.upper()))


def selftest(server: evhttp.Server) -> None:
    """Ask for both."""
    loop = server.loop
    host, port = server.addresses[0]

    def ask() -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{host}:{port}/?name=reader", timeout=10) as answer:
            print("HTTP:", answer.read().decode().strip())
        loop.call_soon_threadsafe(without)

    def without() -> None:
        evws.connect(loop, f"ws://{host}:{port}/ws", on_message=print).add_done_callback(refused)

    def refused(connecting: evws.Connecting) -> None:
        print("without the password:", connecting.exception())
        headers = {"Authorization": f"Bearer {PASSWORD}"}
        url = f"ws://{host}:{port}/ws"
        evws.connect(loop, url, on_message=heard, on_open=lambda ws: ws.send("quiet"), headers=headers)

    def heard(ws: evws.WebSocket, message: str) -> None:
        print("with it:", message)
        ws.close()
        server.close()
        loop.call_later(0.05, loop.stop)

    threading.Thread(target=ask).start()


def main() -> None:
    """Serve."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--selftest"]
    server = evhttp.Server(handle)
    server.listen(arguments[0] if arguments else "127.0.0.1", int(arguments[1]) if arguments[1:] else 0)
    print("both are at {}:{}".format(*server.addresses[0]), flush=True)
    if "--selftest" in sys.argv:
        server.loop.call_soon(selftest, server)
    server.run()


if __name__ == "__main__":
    main()
