"""A server on a unix socket, as behind a proxy on the same machine, which is trusted to say for whom it asks.

Try: curl --unix-socket /tmp/.../http.sock -H 'X-Forwarded-For: 192.0.2.1' http://localhost/
"""

import sys
import tempfile
from pathlib import Path

import evhttp
from evhttp import Request, Response


def handler(req: Request, res: Response) -> None:
    """Tell who is asking."""
    who = req.client[0] if req.client else "somebody on this machine"
    res.send(f"hello, {who}, by {req.scheme}\n")


path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="unix-")) / "http.sock"
server = evhttp.Server(handler, trusted=["unix"]).listen_unix(path, mode=0o660)
print(server.paths[0], flush=True)
server.run()
