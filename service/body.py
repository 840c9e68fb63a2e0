"""Bodies of requests: bytes off the wire, strict JSON, then the types that also make the OpenAPI document.

DESIGN. msgspec alone would take the last of two equal names, a NUL, or a hundred thousand brackets until Python's stack
ends. So the standard library's scanner parses with hooks that refuse what JSON leaves open, one walk over the result
finds text that Postgres can't store, and msgspec converts and validates.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

import msgspec
from aiohttp import web

from service.problem import Flaw, Kind, Problem, invalid

MAX_BODY_BYTES = 64 * 1024
MAX_DEPTH = 32  # of arrays and objects within each other; far below Python's and Postgres's stacks
JSON_TYPE = "application/json"
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_WHERE = re.compile(r" - at `(?P<path>[^`]+)`$")
_FIELD = re.compile(r"(?:unknown|missing required) field `(?P<name>.*)`$", re.DOTALL)
_STEP = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<index>\d+)\]|(?P<any>\[\.\.\.\])")

T = TypeVar("T")


async def read(request: web.BaseRequest, media_types: Sequence[str], seconds: float) -> bytes:
    """Return the body of a request that came with one of these content types, uncompressed, in time."""
    if request.content_type not in media_types or "Content-Type" not in request.headers:
        raise Problem(Kind.UNSUPPORTED_MEDIA_TYPE, f"send {' or '.join(media_types)}", headers=_accept(request))
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Problem(Kind.UNSUPPORTED_MEDIA_TYPE, "send the body without a content encoding")
    if request.headers.get("Expect", "").lower() == "100-continue":
        _refuse_oversize(request.content_length or 0)
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        async with asyncio.timeout(seconds):
            return await _read_all(request)
    except TimeoutError:
        raise Problem(Kind.TOO_SLOW, f"the body didn't arrive within {seconds:g} s") from None
    except web.RequestPayloadError:
        raise Problem(Kind.BAD_REQUEST, "the body's framing is broken") from None


def parse(data: bytes, wanted: type[T]) -> T:
    """Return a JSON body as a ``wanted``; every way in which it can't be one is a Problem that says where."""
    value = strict_json(data)
    refuse_unstorable(value)
    return convert(value, wanted)


def strict_json(data: bytes) -> Any:
    """Return what a JSON text says; Problem for what isn't JSON, or means two things at once."""
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except UnicodeDecodeError as error:
        raise Problem(Kind.BAD_JSON, f"the body isn't UTF-8: byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise Problem(Kind.BAD_JSON, f"{error.msg}: line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise Problem(Kind.BAD_JSON, f"more than {MAX_DEPTH} levels of nesting") from None
    except ValueError as error:  # an integer of more digits than Python reads
        raise Problem(Kind.BAD_JSON, _number_words(error)) from None


def refuse_unstorable(value: Any, pointer: str = "", depth: int = 0) -> None:
    """Raise a Problem where a value nests too deep, or holds text that isn't Unicode text or has a NUL in it."""
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            raise invalid(pointer, "text must be Unicode without NUL and without lone surrogates")
        return
    if not isinstance(value, dict | list):
        return
    if depth >= MAX_DEPTH:
        raise invalid(pointer, f"more than {MAX_DEPTH} levels of nesting")
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(key, str) and _UNSTORABLE.search(key):
            raise invalid(pointer, "names must be Unicode without NUL and without lone surrogates")
        refuse_unstorable(item, f"{pointer}/{escape(key)}", depth + 1)


def convert(value: Any, wanted: type[T]) -> T:
    """Return a parsed value as a ``wanted``; Problem with the place where it doesn't fit."""
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        pointer, detail = locate(str(error))
        raise Problem(Kind.INVALID, "the content doesn't fit", (Flaw(detail, pointer=pointer),)) from None


def locate(message: str) -> tuple[str, str]:
    """Return the JSON pointer and the words of one of msgspec's messages."""
    where = _WHERE.search(message)
    detail = message[: where.start()] if where else message
    steps = _STEP.finditer(where["path"][1:]) if where else ()
    pointer = "".join(f"/{escape(step['name'] or step['index'] or '*')}" for step in steps)
    named = _FIELD.search(detail)
    return (f"{pointer}/{escape(named['name'])}" if named else pointer), detail


def escape(part: str | int) -> str:
    """Return one part of a JSON pointer."""
    return str(part).replace("~", "~0").replace("/", "~1")


async def _read_all(request: web.BaseRequest) -> bytes:
    _refuse_oversize(request.content_length or 0)
    parts = bytearray()
    async for part in request.content.iter_any():
        parts += part
        _refuse_oversize(len(parts))
    return bytes(parts)


def _refuse_oversize(size: int) -> None:
    if size > MAX_BODY_BYTES:
        raise Problem(Kind.TOO_LARGE, f"the body has more than {MAX_BODY_BYTES} bytes")


def _accept(request: web.BaseRequest) -> dict[str, str]:
    return {"Accept-Patch": "application/merge-patch+json"} if request.method == "PATCH" else {}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Problem(Kind.BAD_JSON, f"an object names {json.dumps(twice[:40])} twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise Problem(Kind.BAD_JSON, f"{name} isn't a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise Problem(Kind.BAD_JSON, f"the number {digits[:40]} is too large")
    return number


def _number_words(error: ValueError) -> str:
    return "a number has too many digits" if "digits" in str(error) else "the body can't be read"
