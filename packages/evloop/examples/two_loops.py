"""Two loops in two threads that throw a ball to each other: posting to the other loop is all that crosses between them."""

import threading

import evloop

ROUNDS = 1000


class Player:
    """A loop in a thread of its own."""

    def __init__(self, name: str) -> None:
        self.loop = evloop.Loop()
        self.caught = 0
        self.other: Player = self
        self.thread = threading.Thread(target=self.loop.run, name=name)

    def catch(self, throws_left: int) -> None:
        """Called in this player's thread."""
        assert threading.current_thread() is self.thread
        self.caught += 1
        if throws_left:
            self.other.loop.call_soon_threadsafe(self.other.catch, throws_left - 1)
        else:
            self.loop.stop()
            self.other.loop.stop()


left, right = Player("left"), Player("right")
left.other, right.other = right, left
left.loop.call_soon(left.catch, 2 * ROUNDS - 1)
for player in (left, right):
    player.thread.start()
for player in (left, right):
    player.thread.join()
    player.loop.close()
    print(player.thread.name, "has caught the ball", player.caught, "times")
