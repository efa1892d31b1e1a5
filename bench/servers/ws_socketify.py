"""socketify (uWebSockets through cffi): ws_socketify.py HOST PORT {echo|deflate|fanout}."""

import sys

from socketify import App, AppListenOptions, CompressOptions, OpCode

host, port, work = sys.argv[1:]


def opened(ws):
    if work == "fanout":
        ws.subscribe("all")
        ws.send(b"!", OpCode.BINARY)


def echo(ws, message, opcode):
    ws.send(message, opcode, work == "deflate")


def to_all(ws, message, opcode):
    app.publish("all", message, opcode)


app = App()
compression = CompressOptions.SHARED_COMPRESSOR if work == "deflate" else CompressOptions.DISABLED
behaviour = {
    "compression": compression,
    "max_payload_length": 4 << 20,
    "max_backpressure": 64 << 20,
    "idle_timeout": 960,
    "send_pings_automatically": False,
    "open": opened,
    "message": to_all if work == "fanout" else echo,
}
app.ws("/*", behaviour)
app.listen(AppListenOptions(port=int(port), host=host))
app.run()
