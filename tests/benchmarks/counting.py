"""A receiver in a process of its own that counts which ids arrived where: ``python -m tests.benchmarks.counting``.

Prints its port. ``/failing…`` is answered with 503, ``/slow…`` late, everything else at once; ``GET /arrived`` gives
the count of every idempotency key by path. Ends when its standard input does.
"""

import asyncio
import json
import sys
from collections import Counter, defaultdict

from aiohttp import web

SLOW_S = 0.1


async def serve() -> None:
    """Until nobody wants it any more."""
    arrived: defaultdict[str, Counter[str]] = defaultdict(Counter)

    async def receive(request: web.Request) -> web.Response:
        await request.read()
        arrived[request.path][request.headers["idempotency-key"]] += 1
        if request.path.startswith("/slow"):
            await asyncio.sleep(SLOW_S)
        return web.Response(status=503 if request.path.startswith("/failing") else 200, text="ok")

    async def tell(_request: web.Request) -> web.Response:
        return web.Response(text=json.dumps(arrived), content_type="application/json")

    app = web.Application()
    app.router.add_get("/arrived", tell)
    app.router.add_post("/{path:.*}", receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
