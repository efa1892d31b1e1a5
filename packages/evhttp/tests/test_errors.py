"""The exceptions of evhttp."""

import evhttp


def test_the_tree() -> None:
    assert evhttp.EvHttpError.__bases__ == (Exception,)
    assert issubclass(evhttp.HeaderError, evhttp.EvHttpError)
    assert issubclass(evhttp.HeaderError, ValueError)
    assert issubclass(evhttp.ResponseStateError, evhttp.EvHttpError)
    assert issubclass(evhttp.ParserStateError, evhttp.EvHttpError)
    assert issubclass(evhttp.ProtocolError, evhttp.EvHttpError)


def test_a_protocol_error_has_a_status() -> None:
    error = evhttp.ProtocolError(431, "header section is over its limit")
    assert (error.status, str(error)) == (431, "header section is over its limit")
