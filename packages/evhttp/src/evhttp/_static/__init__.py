"""Files below one folder, over HTTP.

``root`` opens a path without ever leaving the folder, ``cache`` keeps it open for a moment, ``listing`` draws a
folder, and ``handler`` answers requests with them.
"""

from __future__ import annotations

from evhttp._static.handler import StaticFiles

__all__ = ["StaticFiles"]
