"""Rate limits: everybody may ask five times in ten seconds; who has a key, by the key, a hundred times."""

import sys

import evhttp
from evhttp import Request, Response

KEYS = {"secret": "the shop"}

strangers = evhttp.RateLimiter(5, 10.0)
customers = evhttp.RateLimiter(100, 10.0, key=lambda req: KEYS[req.headers["x-key"]])


def handler(req: Request, res: Response) -> None:
    """`allow` has answered, with 429 and Retry-After, when it says no."""
    limiter = customers if req.headers.get("x-key", "") in KEYS else strangers
    if limiter.allow(req, res):
        res.send("at your service\n")


server = evhttp.Server(handler).listen("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
print(f"http://127.0.0.1:{server.addresses[0][1]}/", flush=True)
server.run()
