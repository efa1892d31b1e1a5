"""Send one large body: upload_load.py HOST:PORT PATH BYTES. PATH /multipart makes it the file of a form.

Prints the seconds from the first byte to the answer, which has to be the number of bytes.
"""

import os
import socket
import sys
import time

address, path, text = sys.argv[1:]
size = int(text)
block = memoryview(os.urandom(1 << 20))
before = after = b""
kind = "application/octet-stream"
if path == "/multipart":
    kind = "multipart/form-data; boundary=b0undary"
    before = b'--b0undary\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    after = b"\r\n--b0undary--\r\n"
length = len(before) + size + len(after)
host, _, port = address.rpartition(":")
with socket.create_connection((host, int(port)), timeout=100) as sock:
    head = f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    began = time.monotonic()
    sock.sendall(head.encode() + before)
    left = size
    while left:
        sock.sendall(block[:left])
        left -= min(left, len(block))
    sock.sendall(after)
    answer = sock.recv(4096)
    seconds = time.monotonic() - began
if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(b"\r\n\r\n%d" % size):
    sys.exit(f"wrong answer: {answer[:200]!r}")
print(seconds)
