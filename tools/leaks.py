"""Read what the sanitizers have written during a test run: `python tools/leaks.py FOLDER`. Fails if any of it is about our C code.

LeakSanitizer looks through an interpreter that is not instrumented, and finds there what CPython and its libraries keep until they
end without a pointer to it. A report is ours if our code has made the allocation: if the first frame below the allocator is in a
shim. Every report of AddressSanitizer and UndefinedBehaviorSanitizer counts, because only shims are instrumented.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

__all__ = ["main", "ours"]

_RECORD = re.compile(r"^(?:Direct|Indirect) leak of .*?(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)
_FRAME = re.compile(r"^\s+#\d+ 0x[0-9a-f]+ (.*)$", re.MULTILINE)
_SHIM = re.compile(r"/_c/|_shim\.")
_ALLOCATOR = re.compile(r"^in (?:__interceptor_|operator new)|libasan")
_ERROR = re.compile(r"^.*(?:ERROR: AddressSanitizer|: runtime error: ).*$", re.MULTILINE)


def ours(text: str) -> list[str]:
    """Return the reports in a sanitizer's text that are about our code: errors, and leaks of what our code has allocated."""
    found = []
    errors = list(_ERROR.finditer(text))
    if errors:
        found.append(text[errors[0].start() :].strip())
    for record in _RECORD.findall(text):
        frames = [frame for frame in _FRAME.findall(record) if not _ALLOCATOR.search(frame)]
        if frames and _SHIM.search(frames[0]):
            found.append(record.strip())
    return found


def main(folder: Path) -> int:
    """Print the reports of a folder's files, each kind once, and how many others there were; 1 if there is any."""
    reports: Counter[str] = Counter()
    others = 0
    for path in sorted(folder.iterdir()):
        text = path.read_text(errors="replace")
        mine = ours(text)
        others += len(_RECORD.findall(text)) - sum(_RECORD.match(each) is not None for each in mine)
        # Addresses and sizes differ where the stack is the same.
        reports.update(re.sub(r"0x[0-9a-f]+|==\d+==", "", each) for each in mine)
    for report, count in reports.most_common():
        print(f"{count} × {report}\n")
    print(
        f"leaks: {sum(reports.values())} reports about our code; {others} allocations of CPython and other libraries not counted"
    )
    return 1 if reports else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
