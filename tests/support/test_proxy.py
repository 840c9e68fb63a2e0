"""The fault proxy makes the faults that it is told to, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.proxy import DOWN, UP, Cut, FaultProxy
from tests.support.waiting import wait_for


class Echo:
    """A server that says back what it gets, and remembers it."""

    def __init__(self) -> None:
        self.got = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(1000):
                self.got += piece
                writer.write(piece)
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def echo_behind_proxy() -> AsyncIterator[tuple[Echo, FaultProxy]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with server, FaultProxy(server.sockets[0].getsockname()[1]) as proxy:
        yield echo, proxy
        proxy.cut_all()


async def test_bytes_pass_both_ways() -> None:
    async with echo_behind_proxy() as (_, proxy):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert proxy.lanes[UP].passed_bytes == proxy.lanes[DOWN].passed_bytes == 5
        writer.close()


@pytest.mark.parametrize("after", range(7))
async def test_a_cut_lets_exactly_so_many_bytes_of_the_pattern_pass(after: int) -> None:
    async with echo_behind_proxy() as (echo, proxy):
        proxy.cut(UP, b"COMMIT", after=after)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        for piece in (b"first;CO", b"MM", b"IT;more"):  # the pattern comes in pieces
            writer.write(piece)
            await asyncio.sleep(0)
        await proxy.was_cut.wait()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1000)
        expected = b"first;" + b"COMMIT"[:after]
        await wait_for(lambda: echo.got == expected)
        writer.close()


async def test_a_one_way_stall_lets_requests_arrive_and_holds_answers() -> None:
    async with echo_behind_proxy() as (echo, proxy):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.stall(DOWN)
        writer.write(b"ping")
        await wait_for(lambda: echo.got == b"ping")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(4), 0.05)
        proxy.go_on()
        assert await reader.readexactly(4) == b"ping"
        writer.close()


async def test_latency_delays_an_answer() -> None:
    async with echo_behind_proxy() as (_, proxy):
        proxy.delay(0.05, DOWN)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        started = asyncio.get_running_loop().time()
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        assert asyncio.get_running_loop().time() - started >= 0.05
        writer.close()


async def test_a_dead_server_is_a_reset_for_the_client() -> None:
    async with echo_behind_proxy() as (_, proxy):
        pass
    async with FaultProxy(1) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()


def test_a_cut_keeps_back_only_what_may_become_its_pattern() -> None:
    assert Cut(b"COMMIT", 0).split(b"abcCOM") == (b"abc", b"COM", False)
    assert Cut(b"COMMIT", 0).split(b"abc") == (b"abc", b"", False)
    assert Cut(b"", 2).split(b"abc") == (b"ab", b"", True)
