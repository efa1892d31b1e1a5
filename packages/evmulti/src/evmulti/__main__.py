"""``python -m evmulti module:handler``; see `evmulti._cli`."""

import sys

from evmulti._cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
