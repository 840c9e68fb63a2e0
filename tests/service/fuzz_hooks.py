"""What Schemathesis can't know: which valid-looking values only the service itself can make, or only a moment can tell.

A cursor and a token are signed or name a write, an entity tag is right or wrong by the moment, an idempotency key is
bound to the body that it came with first. Refusing those is right although the schema allows them, so exactly these
refusals, told by the problem's type and parameter, aren't failures. Nor is it one to ignore a header that isn't known,
as every server must (RFC 9110, 5.1).
"""

from __future__ import annotations

import json
from typing import Any

import schemathesis
from schemathesis.hooks import HookContext

_BY_THE_MOMENT = {"/problems/precondition-failed", "/problems/key-reused", "/problems/bad-token"}
_UNKNOWN_HEADER = "x-schemathesis-unknown-property"
_MADE_HERE = {"cursor", "Consistency-Token", "If-Match", "If-None-Match"}


@schemathesis.hook
def filter_failure(context: HookContext, failure: Any, case: Any, response: Any) -> bool:
    """Return whether a failure counts."""
    if failure.title == "Schema-violating request accepted":
        return _UNKNOWN_HEADER not in (case.headers or {})
    if failure.title != "Schema-valid request rejected":
        return True
    problem = json.loads(response.content)
    refused = {flaw.get("parameter") for flaw in problem.get("errors", ())}
    return not (problem["type"] in _BY_THE_MOMENT or refused & _MADE_HERE)
