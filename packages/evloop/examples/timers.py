"""Timers: once, again and again, paused, and moved."""

import evloop

with evloop.Loop() as loop:
    start = loop.time()

    def say(what: str) -> None:
        """Print what has happened, and when."""
        print(f"{loop.time() - start:5.2f} s  {what}")

    heartbeat = loop.call_every(0.05, say, "heartbeat")
    # While it is paused, its clock stands: 0.02 s are left when it goes on.
    loop.call_later(0.13, heartbeat.pause)
    loop.call_later(0.23, heartbeat.resume)

    def give_up() -> None:
        """End, because there was no activity for so long."""
        say("nobody was active for 0.1 s")
        loop.stop()

    # A time-out that activity pushes away is one timer, moved again and again.
    timeout = loop.call_later(0.1, give_up)
    for moment in (0.05, 0.12, 0.18):
        loop.call_later(moment, timeout.reschedule, 0.1)

    never = loop.call_later(0.2, say, "this is cancelled")
    loop.call_later(0.19, never.cancel)

    loop.run()
    heartbeat.cancel()
    print("the heartbeat is cancelled:", heartbeat.cancelled())
