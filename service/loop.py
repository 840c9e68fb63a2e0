"""The event loop that the service runs on: uvloop's where it is installed, asyncio's own elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

_MAKER = import_module("uvloop" if find_spec("uvloop") else "asyncio")  # there is no wheel for every platform
new_event_loop: Callable[[], asyncio.AbstractEventLoop] = _MAKER.new_event_loop
