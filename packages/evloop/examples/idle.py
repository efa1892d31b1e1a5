"""An idle handler: a long computation in small pieces, done while nothing else is to be done."""

import evloop

pieces = 200


def work(loop: evloop.Loop, handle: list[evloop.Handle], found: list[int]) -> None:
    """One piece: the primes of one block of numbers."""
    block = len(found)
    found.append(
        sum(1 for n in range(block * 100, block * 100 + 100) if n > 1 and all(n % d for d in range(2, int(n**0.5) + 1)))
    )
    if block + 1 == pieces:
        handle[0].cancel()
        loop.stop()


with evloop.Loop() as loop:
    found: list[int] = []
    handle: list[evloop.Handle] = []
    handle.append(loop.on_idle(work, loop, handle, found))
    # Timers and descriptors come first: this one is on time although the computation would like the core for itself.
    ticks = loop.call_every(0.01, lambda: print(f"tick after {len(found)} of {pieces} pieces"))
    loop.run()
    ticks.cancel()
    print("primes below 20000:", sum(found))
