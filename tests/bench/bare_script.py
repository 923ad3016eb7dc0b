"""The yardstick: what a capable person writes in an afternoon. google-genai, 10 in flight, the same picture work.

It does what the product does with a picture by the same calls (full decode, one thumbnail, one file) and nothing else:
no database, no retries, no ledger, no second process.
"""

import argparse
import asyncio
import json
import resource
import time
from pathlib import Path

import httpx
from google import genai
from google.genai import types

from nanobatch_runtime.pictures import PictureLimits, work


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--in-flight", type=int, default=10)
    arguments = parser.parse_args()
    async with httpx.AsyncClient(timeout=60) as http:
        options = types.HttpOptions(
            base_url=arguments.url, api_version="v1beta", httpx_async_client=http, timeout=60_000
        )
        client = genai.Client(api_key="bench-key", http_options=options)
        config = types.GenerateContentConfig(response_modalities=["TEXT", "IMAGE"])
        slots = asyncio.Semaphore(arguments.in_flight)
        limits = PictureLimits()

        def keep(number: int, data: bytes) -> None:
            path = arguments.folder / f"{number:03}.png"
            path.write_bytes(data)
            thumbnail = work.check(path, limits, thumbnail=True).thumbnail
            path.with_suffix(".webp").write_bytes(thumbnail.data)

        async def one(number: int) -> None:
            async with slots:
                answer = await client.aio.models.generate_content(
                    model="gemini-2.5-flash-image", contents=f"prompt number {number}", config=config
                )
            data = next(part.inline_data.data for part in answer.parts if part.inline_data)
            await asyncio.to_thread(keep, number, data)

        await one(0)  # what is built once is built
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in range(1, arguments.count + 1):
                tasks.create_task(one(number))
        after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - started
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mib": after.ru_maxrss / 1024}))


if __name__ == "__main__":
    asyncio.run(main())
