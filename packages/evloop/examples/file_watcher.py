"""A file watcher: what happens in a folder and below it, told as it happens."""

import tempfile
from pathlib import Path

import evloop


def main() -> None:
    """Change a few files, one after the other, and print what the watcher says of it."""
    with tempfile.TemporaryDirectory() as name, evloop.Loop() as loop:
        folder = Path(name).resolve()
        notes, below = folder / "notes.txt", folder / "below"

        def last() -> None:
            (below / "deep.txt").write_text("deep")

        steps = iter(
            [
                lambda: notes.write_text("one"),
                lambda: notes.rename(folder / "renamed.txt"),
                lambda: (folder / "renamed.txt").unlink(),
                below.mkdir,
                last,
            ]
        )

        def changed(event: evloop.FileEvent) -> None:
            new = f" -> {event.new_path.relative_to(folder)}" if event.new_path else ""
            print(f"{event.kind.name.lower():10} {event.path.relative_to(folder)}{new}")
            if event.path.name == "deep.txt":
                loop.stop()

        with evloop.FileWatcher(loop, folder, changed, recursive=True):

            def step() -> None:
                if (action := next(steps, None)) is not None:
                    action()

            timer = loop.call_every(0.03, step)
            loop.call_later(10, loop.stop)
            loop.run()
            timer.cancel()


main()
