r"""An echo server that begins TLS when a client asks for it (STARTTLS), and a client that does.

    python tls_echo.py serve CERTIFICATE KEY [PORT]
    python tls_echo.py ask PORT AUTHORITY TEXT

CERTIFICATE, for "localhost", and KEY are PEM files; AUTHORITY is the certificate of who has signed it, or it itself if it was
made by

    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem \
        -subj /CN=localhost -addext subjectAltName=DNS:localhost
"""

import ssl
import sys

import evloop
import evnet


class Lines:
    """Cuts what is received into lines."""

    def connection_made(self, transport):
        """Nothing has come yet."""
        self.transport = transport
        self.rest = b""

    def data_received(self, data):
        """Give on each line that is whole."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for number, line in enumerate(lines):
            if self.line_received(line.rstrip(b"\r")):
                # TLS begins: what stands behind that line came in plaintext, perhaps from somebody in between, and is not obeyed.
                if self.rest or lines[number + 1 :]:
                    self.transport.abort()
                self.rest = b""
                return

    def eof_received(self):
        """Close when everything is sent."""
        return False

    def pause_writing(self):
        """Read no more from a peer that does not take the answers."""
        self.transport.pause_reading()

    def resume_writing(self):
        """Go on."""
        self.transport.resume_reading()

    def connection_lost(self, error):
        """Say why, if it was not meant to end."""
        if error is not None:
            print(f"lost: {error}", file=sys.stderr)


class Echo(Lines):
    """The server's side."""

    def __init__(self, context):
        self.context = context

    def connection_made(self, transport):
        """Greet."""
        super().connection_made(transport)
        transport.write(b"hello, in plaintext\r\n")

    def line_received(self, line):
        """Begin TLS, or answer with the line."""
        if line == b"STARTTLS" and self.transport.get_extra_info("ssl_object") is None:
            self.transport.write(b"go ahead\r\n")
            self.transport.start_tls(self.context, server_side=True)
            return True
        self.transport.write(line + b"\r\n")
        return False


class Ask(Lines):
    """The client's side: asks for TLS, then for an echo."""

    def __init__(self, loop, context, text):
        self.loop = loop
        self.context = context
        self.text = text
        self.answer = self.greeted

    def line_received(self, line):
        """Do what is next."""
        return self.answer(line)

    def greeted(self, line):
        """Ask for TLS."""
        self.answer = self.ready
        self.transport.write(b"STARTTLS\r\n")

    def ready(self, line):
        """Begin it."""
        self.answer = self.echoed
        begun = self.transport.start_tls(self.context, server_hostname="localhost")
        begun.add_done_callback(self.secured)
        return True

    def secured(self, begun):
        """Send the text, now that nobody else can read it."""
        if begun.exception() is None:
            print(f"{begun.result().get_extra_info('cipher')[1]} with {begun.result()}", file=sys.stderr)
            self.transport.write(self.text.encode() + b"\r\n")

    def echoed(self, line):
        """Print the answer; that was all."""
        print(line.decode())
        self.transport.close()

    def connection_lost(self, error):
        """End the program."""
        super().connection_lost(error)
        self.loop.stop()


def serve(certificate, key, port="0"):
    """Run the server."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with evloop.Loop() as loop:
        server = evnet.listen_tcp(loop, lambda: Echo(context), "127.0.0.1", int(port))
        print(f"listening on port {server.addresses[0][1]}", flush=True)
        try:
            loop.run()
        except KeyboardInterrupt:
            pass


def ask(port, authority, text):
    """Run the client."""
    context = ssl.create_default_context(cafile=authority)
    with evloop.Loop() as loop:
        evnet.connect_tcp(loop, lambda: Ask(loop, context, text), "127.0.0.1", int(port), timeout=10).add_done_callback(
            lambda connecting: connecting.exception() and loop.stop()
        )
        loop.run()


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
