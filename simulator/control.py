"""What tests and benchmarks ask outside the wire: health, counters, settings, reset. No key is needed."""

import dataclasses
import json
import time

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from simulator.faults import changed


def routes() -> list[Route]:
    """Return the routes of this module."""
    return [
        Route("/healthz", health),
        Route("/_simulator/counters", counters),
        Route("/_simulator/runs/{run_id:path}", run),
        Route("/_simulator/settings", settings, methods=["GET", "POST"]),
        Route("/_simulator/reset", reset, methods=["POST"]),
    ]


async def health(_: Request) -> JSONResponse:
    """Say that the server answers."""
    return JSONResponse({"status": "ok", "simulated": True})


async def counters(request: Request) -> JSONResponse:
    """Return every counter; ?by_run=0 leaves out the runs."""
    by_run = request.query_params.get("by_run", "1") != "0"
    return JSONResponse(request.app.state.provider.counters.report(time.time(), by_run=by_run))


async def run(request: Request) -> JSONResponse:
    """Return the counters of one client run."""
    run_id = request.path_params["run_id"]
    found = request.app.state.provider.counters.run(run_id, time.time())
    return JSONResponse(found or {"error": f"no request of run {run_id!r} was seen"}, 200 if found else 404)


async def settings(request: Request) -> JSONResponse:
    """Return the fault settings; a POST changes those that it names."""
    faults = request.app.state.provider.faults
    if request.method == "POST":
        try:
            given = json.loads(await request.body())
            faults.apply(changed(faults.settings, dict(given)))
        except (TypeError, ValueError) as error:
            return JSONResponse({"error": str(error)}, 400)
    return JSONResponse(dataclasses.asdict(faults.settings))


async def reset(request: Request) -> JSONResponse:
    """Forget every conversation, response and count."""
    request.app.state.provider.reset()
    return JSONResponse({"reset": True})
