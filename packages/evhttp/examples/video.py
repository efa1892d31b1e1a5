"""Media with ranges: the page plays a sound, and the player fetches the parts that it needs.

What it plays is made here: ten seconds of a tone that rises. A film is served the same way.
"""

import array
import io
import math
import sys
import tempfile
import wave
from pathlib import Path

import evhttp
from evhttp import Request, Response

RATE = 8000
PAGE = """<!DOCTYPE html><title>Media</title>
<audio id=media src="/tone.wav" controls preload=metadata></audio>
<p>Move the slider: only what is played is fetched.</p>
"""


def tone(seconds: int) -> bytes:
    """A WAV file."""
    samples = array.array("h")
    for number in range(RATE * seconds):
        second = number / RATE
        samples.append(round(8000 * math.sin(2 * math.pi * (200 + 20 * second) * second)))
    into = io.BytesIO()
    with wave.open(into, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return into.getvalue()


folder = Path(tempfile.mkdtemp(prefix="media-"))
(folder / "tone.wav").write_bytes(tone(10))


def handler(req: Request, res: Response) -> None:
    """The page, and the file: `serve_file` answers ranges and conditions."""
    if req.path == "/tone.wav":
        res.serve_file(req, folder / "tone.wav", content_type="audio/wav")
    else:
        res.header("Content-Type", "text/html; charset=utf-8").send(PAGE)


server = evhttp.Server(handler).listen("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
print(f"http://127.0.0.1:{server.addresses[0][1]}/", flush=True)
server.run()
