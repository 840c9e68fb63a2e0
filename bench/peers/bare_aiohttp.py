"""``GET /v1/users/{id}`` as one writes it by hand: aiohttp, asyncpg's pool, one Postgres.

    python -m bench.peers.bare_aiohttp URL PORT

The same bodies byte for byte, with the same headers, as the service gives. Tuned: uvloop, no middleware, no access log,
a pool whose connections are open, statements that stay prepared, msgspec, the profile passed on as Postgres sent it.
It leaves out what the service does besides: routing, metrics, limits, and the retries behind its errors.
"""

from __future__ import annotations

import sys
from datetime import datetime
from itertools import count
from uuid import UUID

import asyncpg
import msgspec
import uvloop
from aiohttp import web

COLUMNS = "id, email, name, username, profile, locale, status, version, created_at, updated_at"
READ = f"SELECT {COLUMNS} FROM users WHERE id = $1"
HEADERS = {
    "Content-Type": "application/json",
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
POOL = web.AppKey("pool", asyncpg.Pool)
numbers = count(1)
encode = msgspec.json.Encoder().encode


class User(msgspec.Struct):
    id: UUID
    email: str
    name: str | None
    username: str | None
    profile: msgspec.Raw
    locale: str | None
    status: str
    version: int
    created_at: datetime
    updated_at: datetime


async def get_user(request: web.Request) -> web.Response:
    try:
        user_id = UUID(request.match_info["id"])
    except ValueError:
        raise web.HTTPBadRequest from None
    row = await request.app[POOL].fetchrow(READ, user_id)
    if row is None:
        raise web.HTTPNotFound
    etag = f'"{row[7]}"'
    headers = {**HEADERS, "ETag": etag, "X-Request-Id": f"{next(numbers):x}"}
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers=headers)
    user = User(row[0], row[1], row[2], row[3], msgspec.Raw(row[4]), row[5], row[6], row[7], row[8], row[9])
    return web.Response(body=encode(user), headers=headers)


async def make_app(url: str) -> web.Application:
    app = web.Application()
    app[POOL] = await asyncpg.create_pool(
        url, min_size=10, max_size=10, max_queries=10**9, max_inactive_connection_lifetime=0
    )
    app.router.add_get("/v1/users/{id}", get_user)
    return app


if __name__ == "__main__":
    loop = uvloop.new_event_loop()
    web.run_app(make_app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), access_log=None, print=None, loop=loop)
