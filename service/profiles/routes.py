"""Users over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Annotated, Any, NoReturn, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta

import shardlib
from service import body
from service.problem import Kind, Problem, bad_parameter
from service.profiles import domain
from service.profiles.cursors import Cursors
from service.profiles.users import Users
from service.profiles.wire import Batch, Found, Lookup, NewUser, Page, PageQuery, User, UserPatch
from service.reply import JSON_LINES, NO_STORE_LINES, Reply, header_lines
from service.route import Answer, Call, Parameter, Route
from shardlib import Reader, Shard
from shardlib.errors import ShardlibError

MERGE_PATCH = "application/merge-patch+json"
MAX_LAG_SECONDS = 3600.0
_encode = msgspec.json.Encoder().encode
_TAGS = r'^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$'

TagList = Annotated[str, Meta(pattern=_TAGS, examples=['"3"'])]
Token = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]+$", max_length=400)]
MaxLag = Annotated[float, Meta(ge=0, le=MAX_LAG_SECONDS, examples=[1.5])]
Key = Annotated[str, Meta(pattern=r"^[!-~]+$", min_length=1, max_length=200, examples=["7f3f0c8e-create-ada"])]

ID = Parameter("id", "path", UUID, "The user's id.", required=True)
IF_MATCH = Parameter("If-Match", "header", TagList, "Change the user only if it is still at this version.")
IF_NONE_MATCH = Parameter("If-None-Match", "header", TagList, "Answer 304 if the user is still at this version.")
KEY = Parameter(
    "Idempotency-Key", "header", Key, "Makes a repeated request harmless: it gets the answer of the first that worked."
)
READ_TOKEN = Parameter(
    "Consistency-Token", "header", Token, "A replica may answer, if it shows the write that this token stands for."
)
MAX_LAG = Parameter("Max-Lag", "header", MaxLag, "A replica may answer, if it is at most so many seconds behind.")
PREFER = Parameter(
    "Prefer", "header", Annotated[str, Meta(examples=["consistency-token"])],
    "`consistency-token`: answer with a `Consistency-Token` for reads that must see this write.",
)  # fmt: skip

_DOWN = (Kind.UNAVAILABLE, Kind.OVERLOADED, Kind.DEADLINE)
_BODY = (Kind.BAD_JSON, Kind.TOO_SLOW, Kind.TOO_LARGE, Kind.UNSUPPORTED_MEDIA_TYPE, Kind.INVALID)
_TOKEN_OUT = {"Consistency-Token": "For reads that must see this write.", "Preference-Applied": "consistency-token"}

T = TypeVar("T")


class UserRoutes:
    """The handlers of ``/v1/users``."""

    def __init__(self, users: Users, cursors: Cursors, seconds: float) -> None:
        self._users = users
        self._cursors = cursors
        self._seconds = seconds  # for operations of several calls; a single call has the same limit from the library

    async def get(self, call: Call) -> Reply:
        """GET /v1/users/{id}: the hot path."""
        user_id = call.path(UUID)
        headers = call.request.headers
        home = self._users.home(user_id)
        source = self._replica(home, call) if "Consistency-Token" in headers or "Max-Lag" in headers else home
        found = await self._users.get(user_id, source)
        if found is None:
            _nobody()
        lines = f'{JSON_LINES}ETag: "{found.version}"\r\n'
        if "If-None-Match" in headers and domain.is_same(headers["If-None-Match"], found.version):
            return Reply(304, b"", lines)
        return Reply(200, _encode(found), lines)

    async def create(self, call: Call) -> Reply:
        """POST /v1/users."""
        key = call.request.headers.get("Idempotency-Key")
        key = None if key is None else domain.check_idempotency_key(key)
        fields = domain.fields_of(await call.body(NewUser))
        async with shardlib.deadline(self._seconds) as limit:
            user_id, content = await self._users.create(fields, key)
        token = await self._token(call, user_id, limit.at)
        headers = {"Location": f"/v1/users/{user_id}", "ETag": domain.etag(1), **token}
        return Reply(201, content, JSON_LINES + header_lines(headers))

    async def patch(self, call: Call) -> Reply:
        """PATCH /v1/users/{id}."""
        user_id = call.path(UUID)
        if_match = _if_match(call)
        patch = await call.body(UserPatch)
        async with shardlib.deadline(self._seconds) as limit:
            after = await self._users.patch(user_id, patch, if_match)
        if after is None:
            _nobody()
        token = await self._token(call, user_id, limit.at)
        headers = {"ETag": domain.etag(after.version), **token}
        return Reply(200, _encode(after), JSON_LINES + header_lines(headers))

    async def delete(self, call: Call) -> Reply:
        """DELETE /v1/users/{id}."""
        user_id = call.path(UUID)
        async with shardlib.deadline(self._seconds) as limit:
            there_was = await self._users.delete(user_id, _if_match(call))
        if not there_was:
            _nobody()
        token = await self._token(call, user_id, limit.at)
        return Reply(204, b"", NO_STORE_LINES + header_lines(token))

    async def list(self, call: Call) -> Reply:
        """GET /v1/users: a page over all nodes."""
        query = call.query(PageQuery)
        after = None if query.cursor is None else self._cursors.read(query.cursor)
        async with shardlib.deadline(self._seconds):
            users = await self._users.page(after, query.limit + 1)
        more = len(users) > query.limit
        cursor = self._cursors.make(users[query.limit - 1].id) if more else None
        link = {"Link": f'</v1/users?limit={query.limit}&cursor={cursor}>; rel="next"'} if more else {}
        return Reply(200, _encode(Page(users[: query.limit], cursor)), JSON_LINES + header_lines(link))

    async def batch(self, call: Call) -> Reply:
        """POST /v1/users/batch-get: many users, one query per node."""
        wanted = await call.body(Batch)
        return Reply(200, _encode(await self._users.batch(wanted.ids)))

    async def lookup(self, call: Call) -> Reply:
        """POST /v1/users/lookup: by e-mail."""
        wanted = await call.body(Lookup)
        async with shardlib.deadline(self._seconds):
            found = await self._users.find(wanted.email)
        if found is None:
            _nobody()
        return Reply(200, _encode(found), JSON_LINES + header_lines({"ETag": domain.etag(found.version)}))

    def _replica(self, home: Shard, call: Call) -> Reader:
        headers = call.request.headers
        token = headers.get("Consistency-Token")
        lag = _header(call, "Max-Lag", MaxLag) if "Max-Lag" in headers else None
        return home.replica(max_lag=lag, after=token)

    async def _token(self, call: Call, user_id: UUID, until: float) -> dict[str, str]:
        """Return the headers that carry a token, if the caller prefers one (it costs a query) and it comes in time.

        Its deadline, the rest of the write's up to ``until`` by ``monotonic``, is its own: it must not fail the write.
        """
        wishes = call.request.headers.get("Prefer", "")
        if "consistency-token" not in {wish.strip().lower() for wish in wishes.split(",")}:
            return {}
        try:
            async with shardlib.deadline(until - monotonic()):
                token = await self._users.home(user_id).token()
        except ShardlibError:
            return {}  # the write stands; a token is a preference
        return {"Consistency-Token": str(token), "Preference-Applied": "consistency-token"}


def routes(users: Users, cursors: Cursors, seconds: float) -> Sequence[Route]:
    """Return the operations on users."""
    at = UserRoutes(users, cursors, seconds)
    tag_out = {"ETag": "The user's version, for If-Match and If-None-Match."}
    new_out = {"Location": "Where it is.", **tag_out, **_TOKEN_OUT}
    one: dict[str, Any] = {"path": "/v1/users/{id}", "path_parameter": ID, "tag": "users"}
    return (
        Route(
            "GET", handler=at.get, name="getUser", summary="Read a user", **one,
            headers=(IF_NONE_MATCH, READ_TOKEN, MAX_LAG),
            answers={200: Answer("The user.", User, tag_out), 304: Answer("It hasn't changed.", headers=tag_out)},
            problems=(Kind.BAD_PARAMETER, Kind.BAD_TOKEN, Kind.NOT_FOUND, Kind.WRITE_LOST, *_DOWN),
        ),
        Route(
            "PATCH", handler=at.patch, name="patchUser", summary="Change a user (JSON merge patch)", **one,
            headers=(IF_MATCH, PREFER), body=UserPatch, media_types=(MERGE_PATCH,),
            answers={200: Answer("The user as it is now.", User, tag_out | _TOKEN_OUT)},
            problems=(Kind.BAD_PARAMETER, Kind.NOT_FOUND, Kind.CONFLICT, Kind.PRECONDITION_FAILED, *_BODY,
                      *_DOWN, Kind.OUTCOME_UNKNOWN),
        ),
        Route(
            "DELETE", handler=at.delete, name="deleteUser", summary="Forget a user", **one,
            headers=(IF_MATCH, PREFER), answers={204: Answer("It is gone.", headers=_TOKEN_OUT)},
            problems=(Kind.BAD_PARAMETER, Kind.NOT_FOUND, Kind.PRECONDITION_FAILED, *_DOWN, Kind.OUTCOME_UNKNOWN),
        ),
        Route(
            "POST", "/v1/users", at.create, "createUser", "Create a user", tag="users",
            headers=(KEY, PREFER), body=NewUser,
            answers={201: Answer("The new user.", User, new_out, links=("getUser", "patchUser", "deleteUser"))},
            problems=(Kind.BAD_PARAMETER, Kind.CONFLICT, Kind.KEY_REUSED, *_BODY, *_DOWN, Kind.OUTCOME_UNKNOWN),
        ),
        Route(
            "GET", "/v1/users", at.list, "listUsers", "List users over all nodes, in the order of their ids",
            tag="users", query=PageQuery, problems=(Kind.BAD_PARAMETER, *_DOWN),
            answers={200: Answer("A page.", Page, {"Link": 'The next page, rel="next", if there is one.'})},
        ),
        Route(
            "POST", "/v1/users/batch-get", at.batch, "getUsers", "Read many users", tag="users", body=Batch,
            answers={200: Answer("Those that exist, and the ids of the others.", Found)}, problems=(*_BODY, *_DOWN),
        ),
        Route(
            "POST", "/v1/users/lookup", at.lookup, "lookUpUser", "Find a user by e-mail", tag="users", body=Lookup,
            answers={200: Answer("The user.", User, tag_out)}, problems=(Kind.NOT_FOUND, *_BODY, *_DOWN),
        ),
    )  # fmt: skip


def _nobody() -> NoReturn:
    raise Problem(Kind.NOT_FOUND, "no such user")


def _if_match(call: Call) -> str | None:
    """Return If-Match, after a look at its form: a bad one is said before anything is done."""
    header = call.request.headers.get("If-Match")
    if header is not None:
        domain.tags(header, "If-Match")
    return header


def _header(call: Call, name: str, wanted: type[T]) -> T:
    try:
        return msgspec.convert(call.request.headers[name], wanted, strict=False)
    except msgspec.ValidationError as error:
        raise bad_parameter(name, body.locate(str(error))[1]) from None
