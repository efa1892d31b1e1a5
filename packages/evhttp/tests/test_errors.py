"""The exceptions of evhttp."""

import evhttp


def test_the_tree() -> None:
    assert evhttp.EvHttpError.__bases__ == (Exception,)
    assert issubclass(evhttp.HeaderError, evhttp.EvHttpError)
    assert issubclass(evhttp.HeaderError, ValueError)
    assert issubclass(evhttp.ResponseStateError, evhttp.EvHttpError)
