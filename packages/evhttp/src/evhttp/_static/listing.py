"""The page that shows a folder: HTML and CSS, no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from html import escape
from stat import S_ISDIR, S_ISLNK, S_ISREG
from time import gmtime
from typing import NamedTuple
from urllib.parse import quote

from evhttp._static.root import Refused, Root

__all__ = ["HEADERS", "JSON_HEADERS", "Entry", "read_folder", "render", "render_json"]

# A page is made in one go on the loop's thread, in some 7 µs for an entry; and nobody reads a longer one.
_MOST = 5000

_STYLE = """
:root { color-scheme: light dark; --page: #fafafa; --card: #fff; --text: #1f2328; --soft: #656d76; --line: #e4e7eb;
  --hover: #f2f6fc; --link: #0b57d0; --folder: #4a8fe7; --file: #9aa4af; }
@media (prefers-color-scheme: dark) { :root { --page: #0f1216; --card: #171b21; --text: #e3e8ee; --soft: #929daa; --line: #2a3038;
  --hover: #1e242c; --link: #8ab8ff; --folder: #6ba5f2; --file: #6c7683; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 2.5rem 1.25rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 60rem; margin: 0 auto; }
h1 { margin: 0 0 .15rem; font-size: 1.4rem; font-weight: 600; overflow-wrap: anywhere; }
h1 span { color: var(--soft); font-weight: 400; padding: 0 .15em; }
p { margin: 0 0 1.1rem; color: var(--soft); font-size: .87rem; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
.card { border: 1px solid var(--line); border-radius: 10px; background: var(--card); overflow: hidden; }
table { width: 100%; border-collapse: collapse; }
th { padding: .55rem 1rem; color: var(--soft); font-size: .8rem; font-weight: 600; text-align: left; }
td { padding: 0 1rem; border-top: 1px solid var(--line); }
th + th, td + td { text-align: right; white-space: nowrap; width: 1%; font-variant-numeric: tabular-nums; }
td + td { color: var(--soft); font-size: .87rem; }
tr:hover td { background: var(--hover); }
td a { display: flex; gap: .7rem; padding: .42rem 0; }
td bdi { min-width: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
svg { flex: none; width: 18px; height: 18px; margin-top: .15rem; fill: var(--file); }
body > svg { display: none; }
.d svg { fill: var(--folder); }
td.none { padding: 1.6rem 1rem; color: var(--soft); text-align: center; }
@media (max-width: 36rem) { body { padding: 1.25rem .75rem; } th:last-child, td:last-child { display: none; } }
"""

# Folder, file, and the way up; drawn on 18 by 18.
_ICONS = """<svg hidden>
<symbol id="d" viewBox="0 0 18 18">
<path d="M1 4.5Q1 3 2.5 3H6.5L8.5 5H15.5Q17 5 17 6.5V13.5Q17 15 15.5 15H2.5Q1 15 1 13.5Z"/></symbol>
<symbol id="f" viewBox="0 0 18 18">
<path d="M3 2.5Q3 1 4.5 1H10V6H15V15.5Q15 17 13.5 17H4.5Q3 17 3 15.5ZM11 1 15 5H11Z"/></symbol>
<symbol id="u" viewBox="0 0 18 18">
<path d="M9 3 3.5 8.5 4.7 9.7 8.1 6.3V15H9.9V6.3L13.3 9.7 14.5 8.5Z"/></symbol>
</svg>"""

# Even if a name got through the escaping, nothing would run: only this style sheet is allowed, and an empty icon, so that browsers
# ask for no other.
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()
HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
    (
        "Content-Security-Policy",
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; base-uri 'none'; form-action 'none'",
    ),
    ("Cache-Control", "no-cache"),
    ("Vary", "Accept"),
)
JSON_HEADERS = (
    ("Content-Type", "application/json"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-cache"),
    ("Vary", "Accept"),
)

# Control characters become their pictures, and what turns the direction of text a replacement character, so that no name looks like
# another one: "exe.png" may be "\u202egnp.exe".
_HIDDEN = (*range(0x80, 0xA0), 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_PICTURES = {code: 0x2400 + code for code in range(32)} | {0x7F: 0x2421} | dict.fromkeys(_HIDDEN, 0xFFFD)


class Entry(NamedTuple):
    """A line of the page."""

    name: bytes
    is_folder: bool
    size: int
    changed: float


def read_folder(root: Root, names: list[bytes], fd: int) -> tuple[list[Entry], int]:
    """Read the entries that would be served if asked for: no hidden ones, no pipes, no links out of the root.

    Args:
        root: What links must not leave.
        names: The folder, as a path below the root.
        fd: The folder, open.

    Returns:
        The entries, folders first, and how many names there were; more than entries when the folder is too large to show.

    Raises:
        Refused: 403, it may not be read.
    """
    try:
        with os.scandir(fd) as found:
            shown = [(os.fsencode(each.name), each) for each in found if not each.name.startswith(".")]
    except OSError:
        raise Refused(403) from None
    count = len(shown)
    shown.sort(key=lambda pair: (pair[1].name.casefold(), pair[0]))
    entries = []
    for name, each in shown[:_MOST]:
        try:
            status = each.stat(follow_symlinks=False)
            if S_ISLNK(status.st_mode):
                status = _stat_below(root, [*names, name])
        except (OSError, Refused):  # gone meanwhile, or a link that is not followed
            continue
        if S_ISDIR(status.st_mode) or S_ISREG(status.st_mode):
            entries.append(Entry(name, S_ISDIR(status.st_mode), status.st_size, status.st_mtime))
    entries.sort(key=lambda entry: not entry.is_folder)
    return entries, count


def _stat_below(root: Root, names: list[bytes]) -> os.stat_result:
    fd = root.open(names)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def render(names: list[bytes], entries: list[Entry], count: int) -> bytes:
    """Write the page.

    Args:
        names: The folder, as a path below the root.
        entries: What is in it.
        count: How many names it really has.
    """
    title = escape("/" + "".join(f"{_text(name)}/" for name in names))
    rows = "".join(_rows(bool(names), entries))
    if not entries:
        rows += '<tr><td colspan="3" class="none">Nothing here yet</td></tr>\n'
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
{_ICONS}
<main>
<h1>{_crumbs(names)}</h1>
<p>{_summary(entries, count)}</p>
<div class="card">
<table>
<tr><th>Name</th><th>Size</th><th>Changed (UTC)</th></tr>
{rows}</table>
</div>
</main>
</body>
</html>
"""
    return page.encode()


def render_json(entries: list[Entry], count: int) -> bytes:
    """Write the folder for programs.

    ``{"entries": [{"name", "type", "size", "modified", "url"}, ...], "total": count}``: a name that is no text has U+FFFD in it,
    the URL is relative and always exact. ``type`` is ``"file"`` or ``"folder"``, ``size`` in bytes and only of files,
    ``modified`` in seconds since the epoch.
    """
    found = []
    for name, is_folder, size, changed in entries:
        entry: dict[str, object] = {"name": name.decode("utf-8", "replace"), "type": "folder" if is_folder else "file"}
        if not is_folder:
            entry["size"] = size
        entry["modified"] = int(changed)
        entry["url"] = quote(name, safe="") + ("/" if is_folder else "")
        found.append(entry)
    return json.dumps({"entries": found, "total": count}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _text(name: bytes) -> str:
    """A name to be read by people: valid text without control characters, whatever the file system holds."""
    return name.decode("utf-8", "replace").translate(_PICTURES)


def _crumbs(names: list[bytes]) -> str:
    """The path, each folder above a link. Relative, so that a proxy may serve this under another prefix."""
    labels = [escape(label) for label in ("home", *map(_text, names))]
    above = len(names)
    parts = [f'<a href="{"../" * (above - depth)}"><bdi>{label}</bdi></a>' for depth, label in enumerate(labels)]
    parts[-1] = f"<bdi>{labels[-1]}</bdi>"
    return "<span>/</span>".join(parts)


def _rows(has_parent: bool, entries: Iterable[Entry]) -> Iterable[str]:
    if has_parent:
        yield '<tr class="d"><td><a href="../"><svg><use href="#u"/></svg><bdi>..</bdi></a></td><td></td><td></td></tr>\n'
    for name, is_folder, size, changed in entries:
        # Everything but letters and digits is encoded, colons too: no name can begin with a scheme.
        link, label = quote(name, safe=""), escape(_text(name))
        if is_folder:
            row, icon, link, label = '<tr class="d">', "d", f"{link}/", f"{label}/"
        else:
            row, icon = "<tr>", "f"
        yield (
            f'{row}<td><a href="{link}"><svg><use href="#{icon}"/></svg><bdi>{label}</bdi></a></td>'
            f"<td>{'' if is_folder else _size(size)}</td><td>{_time(changed)}</td></tr>\n"
        )


def _summary(entries: list[Entry], count: int) -> str:
    folders = sum(entry.is_folder for entry in entries)
    files = len(entries) - folders
    size = sum(entry.size for entry in entries if not entry.is_folder)
    text = f"{folders} folder{'' if folders == 1 else 's'}, {files} file{'' if files == 1 else 's'}"
    text += f", {_size(size)}" if files else ""
    return text if count <= _MOST else f"{text}: the first {_MOST:,} of {count:,} names"


def _size(size: int) -> str:
    """``"0 B"``, ``"9.8 kB"``, ``"1.0 GB"``: powers of 1000, as file managers have it."""
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} EB"


def _time(seconds: float) -> str:
    at = gmtime(seconds)
    return f"{at.tm_year:04}-{at.tm_mon:02}-{at.tm_mday:02} {at.tm_hour:02}:{at.tm_min:02}"
