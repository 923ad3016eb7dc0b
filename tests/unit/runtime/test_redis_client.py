"""What a lost connection to Redis raises."""

import asyncio

import pytest
import uvloop

from nanobatch_runtime.redis.client import REDIS_ERRORS, open_client


def test_a_connection_that_was_closed_under_a_command_is_told_as_lost():
    async def main() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(1_000):
                writer.write(b"+OK\r\n")
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            client = open_client(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
            connection = await client.connection_pool.get_connection()
            connection._writer.transport.abort()
            await asyncio.sleep(0.01)
            with pytest.raises(REDIS_ERRORS):
                await connection.send_command("PING")
            await client.connection_pool.release(connection)
            await client.aclose()

    uvloop.run(main())
