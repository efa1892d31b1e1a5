"""A static site: pages that are looked at again each time, and assets, with a hash in their names, that are kept for a year."""

import sys
import tempfile
from pathlib import Path

import evhttp
from evhttp import Request, Response

folder = Path(tempfile.mkdtemp(prefix="site-"))
(folder / "assets").mkdir()
(folder / "index.html").write_text(
    '<!DOCTYPE html><link rel=stylesheet href="/assets/style.3f1c.css"><h1>A site</h1>\n'
)
(folder / "assets" / "style.3f1c.css").write_text("h1 { color: teal }\n")
(folder / "404.html").write_text("<!DOCTYPE html><h1>Not here</h1>\n")

pages = evhttp.StaticFiles(folder, listing=False, cache_control="no-cache")
assets = evhttp.StaticFiles(folder, listing=False, cache_control="public, max-age=31536000, immutable", cors="*")


def handler(req: Request, res: Response) -> None:
    """Choose by the path."""
    if req.path.startswith("/assets/"):
        assets(req, res)
    else:
        pages(req, res)


server = evhttp.Server(handler).listen("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
print(f"http://127.0.0.1:{server.addresses[0][1]}/", flush=True)
server.run()
