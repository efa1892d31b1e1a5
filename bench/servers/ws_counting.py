"""What the clients of the "ws" benchmark have in common."""

import argparse

MESSAGE = bytes(range(256))


def arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--warmup", type=float, default=1)
    parser.add_argument("--seconds", type=float, default=4)
    return parser.parse_args()
