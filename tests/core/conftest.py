"""How hypothesis tests the core: no deadline per example, since a busy machine would fail it for its own sake."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("core", deadline=None, max_examples=50)
settings.load_profile("core")
