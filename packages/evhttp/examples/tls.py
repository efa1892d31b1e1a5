"""HTTPS, and plain HTTP beside it that sends everybody there: tls.py [PORT [CERTIFICATE KEY]].

Without a certificate one is made for localhost by the program openssl, and nobody should trust it; try curl -k. At SIGHUP the
files are read again, as after a renewal: clients to come get the new certificate, connections that are open stay.
"""

import signal
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import evhttp
from evhttp import Request, Response


def self_signed() -> tuple[Path, Path]:
    """Make a certificate for ten days."""
    folder = Path(tempfile.mkdtemp(prefix="tls-"))
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-days", "10", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    return certificate, key


port = int(sys.argv[1]) if len(sys.argv) > 1 else 8443
certificate, key = map(Path, sys.argv[2:4]) if len(sys.argv) > 3 else self_signed()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.set_alpn_protocols(["http/1.1"])
context.load_cert_chain(certificate, key)


def handler(req: Request, res: Response) -> None:
    """Answer who came by TLS, and send the others to where it is."""
    if req.scheme == "https":
        res.header("Strict-Transport-Security", "max-age=600").send("nobody else reads this\n")
    else:
        res.redirect(f"https://localhost:{server.addresses[0][1]}{req.target}", 308)


def reload() -> None:
    """Take the certificate of now; one that cannot be used leaves the old one."""
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        print(f"the certificate was not read: {error}", file=sys.stderr, flush=True)
    else:
        print("the certificate was read again", flush=True)


server = evhttp.Server(handler)
server.listen("127.0.0.1", port, ssl=context)
server.listen("127.0.0.1", 0)
server.loop.add_signal_handler(signal.SIGHUP, reload)
print(f"https://127.0.0.1:{server.addresses[0][1]}/ and http://127.0.0.1:{server.addresses[1][1]}/", flush=True)
server.run()
