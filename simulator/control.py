"""What tests and benchmarks ask outside the wire: health, counters, settings, reset. No key is needed."""

import dataclasses
import json
import time

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from simulator.counters import Counters
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
    """Return every counter; ?by_run=0 leaves out the runs, ?anomalies=1 all but those that did a step twice."""
    counted: Counters = request.app.state.provider.counters
    if request.query_params.get("anomalies", "0") != "0":
        return JSONResponse(counted.anomalies(time.time()))
    by_run = request.query_params.get("by_run", "1") != "0"
    return JSONResponse(counted.report(time.time(), by_run=by_run))


async def run(request: Request) -> JSONResponse:
    """Return the counters of one client run, how often each of its steps was carried out, and how soon each was due."""
    run_id, provider = request.path_params["run_id"], request.app.state.provider
    counted = provider.counters
    found = counted.run(run_id, time.time())
    if found is None:
        return JSONResponse({"error": f"no request of run {run_id!r} was seen"}, 404)
    own = [one.request for one in provider.responses.values() if one.run_id == run_id]
    options = [one["background_options"] for one in own if one.get("background_options")]
    return JSONResponse({**found, "steps": counted.runs[run_id].steps, "background_options": options})


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
    """Forget every conversation, response, thread and count."""
    request.app.state.provider.reset()
    request.app.state.threads.reset()
    return JSONResponse({"reset": True})
