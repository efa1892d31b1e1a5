"""The RSGI and WSGI applications that granian is pointed at."""

HEADERS = [("content-type", "text/plain; charset=utf-8")]
WSGI_HEADERS = [*HEADERS, ("content-length", "13")]


async def rsgi_hello(scope, proto):
    proto.response_bytes(200, HEADERS, b"Hello, World!")


async def rsgi_browser(scope, proto):
    agent = scope.headers.get("user-agent")
    language = scope.headers.get("accept-language")
    proto.response_bytes(200, HEADERS, b"Hello, World!" if agent and language else b"no such header")


def wsgi_hello(environ, start_response):
    start_response("200 OK", WSGI_HEADERS)
    return [b"Hello, World!"]


def wsgi_browser(environ, start_response):
    agent = environ.get("HTTP_USER_AGENT")
    language = environ.get("HTTP_ACCEPT_LANGUAGE")
    start_response("200 OK", WSGI_HEADERS)
    return [b"Hello, World!" if agent and language else b"no header----"]
