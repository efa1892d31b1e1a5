"""The exceptions of evnet."""

import evnet


def test_the_tree() -> None:
    assert issubclass(evnet.ConnectionClosedError, evnet.EvNetError)
    assert evnet.EvNetError.__bases__ == (Exception,)
    assert not issubclass(evnet.ConnectionClosedError, OSError)
