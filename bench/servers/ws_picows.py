"""picows on uvloop: ws_picows.py HOST PORT {echo|fanout}. It has no compression."""

import sys

import picows
import uvloop

transports = set()


class Echo(picows.WSListener):
    def on_ws_frame(self, transport, frame):
        if frame.msg_type == picows.WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif frame.fin:
            transport.send(frame.msg_type, frame.get_payload_as_bytes())


class Fanout(picows.WSListener):
    def on_ws_connected(self, transport):
        transports.add(transport)
        transport.send(picows.WSMsgType.BINARY, b"!")

    def on_ws_disconnected(self, transport):
        transports.discard(transport)

    def on_ws_frame(self, transport, frame):
        message = frame.get_payload_as_bytes()
        for each in transports:
            each.send(frame.msg_type, message)


async def main(host, port, listener):
    server = await picows.ws_create_server(lambda request: listener(), host, port, backlog=4096)
    await server.serve_forever()


host, port, work = sys.argv[1:]
uvloop.run(main(host, int(port), {"echo": Echo, "fanout": Fanout}[work]))
