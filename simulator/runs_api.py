"""Assistants v2: the routes of runs and their steps."""

from starlette.requests import Request
from starlette.routing import Route

from simulator import connections, streams, thread_streams
from simulator import threads_validation as rules
from simulator.gate import Content, befall, run_in_metadata
from simulator.provider import Provider
from simulator.thread_runs import Run
from simulator.thread_steps import steps
from simulator.threads import Wanted
from simulator.threads_api import beta_route, page, threads_of
from simulator.wire import JsonObject

_RUNS = "/threads/{id}/runs"
_CONTENT = "step_details.tool_calls[*].file_search.results[*].content"
_RUN = "/threads/{id}/runs/{run_id}"


def routes() -> list[Route]:
    """Return the routes of this module."""
    return [
        beta_route("POST", _RUNS, create_run, run_of=run_in_metadata, late=_create_late, faulty=True),
        beta_route("GET", _RUNS, list_runs),
        beta_route("GET", _RUN, get_run, run_of=_run_of, faulty=True),
        beta_route("POST", _RUN, update_run, run_of=_run_of),
        beta_route("POST", f"{_RUN}/cancel", cancel_run, run_of=_run_of),
        beta_route("POST", f"{_RUN}/submit_tool_outputs", submit, run_of=_run_of, late=_submit_late, faulty=True),
        beta_route("GET", f"{_RUN}/steps", list_steps, run_of=_run_of),
        beta_route("GET", f"{_RUN}/steps/{{step_id}}", get_step, run_of=_run_of),
    ]


def _run_of(_: Provider, request: Request, __: JsonObject) -> str | None:
    return threads_of(request).run_of(request.path_params["run_id"])


def _create_late(_: Provider, request: Request, body: JsonObject) -> None:
    threads = threads_of(request)
    threads.carry_out(threads.wanted_run(request.path_params["id"], body), request.headers["authorization"])


def _submit_late(_: Provider, request: Request, body: JsonObject) -> None:
    threads, path = threads_of(request), request.path_params
    wanted = threads.wanted_outputs(path["id"], path["run_id"], body)
    threads.carry_out(wanted, request.headers["authorization"])


async def create_run(provider: Provider, request: Request, body: JsonObject) -> Content:
    """POST /threads/{id}/runs: at once, or as a stream to calls or the end."""
    provider.counters.creates += 1
    return _accepted(provider, request, body, threads_of(request).wanted_run(request.path_params["id"], body))


async def submit(provider: Provider, request: Request, body: JsonObject) -> Content:
    """POST /threads/{id}/runs/{run_id}/submit_tool_outputs: likewise."""
    path = request.path_params
    return _accepted(provider, request, body, threads_of(request).wanted_outputs(path["id"], path["run_id"], body))


def _accepted(provider: Provider, request: Request, body: JsonObject, wanted: Wanted) -> Content:
    trouble = provider.trouble(wanted.asking, "drop before", "drop after", "late", "slow")
    if trouble is not None:
        befall(provider, request, trouble)
    run = threads_of(request).carry_out(wanted, request.headers["authorization"])
    if not body.get("stream"):
        return run.body(provider.clock())
    befallen = provider.trouble(wanted.asking, "cut", "stall") or provider.faults.stream()
    written = thread_streams.told(run, provider.faults.settings.stream_deltas)
    return streams.sent(provider, run.leg.response, written, befallen, connections.cutter(request))


def _found(request: Request) -> Run:
    return threads_of(request).run(request.path_params["id"], request.path_params["run_id"])


async def get_run(provider: Provider, request: Request, _: JsonObject) -> JsonObject:
    """GET /threads/{id}/runs/{run_id}: a header says when to look again at one that has not ended."""
    run, now, pause = _found(request), provider.clock(), provider.faults.settings.poll_after_ms
    if run.is_active(now) and pause:
        # What api.openai.com says there is not recorded; without the header the SDK takes 1000.
        request.state.limits = {**request.state.limits, "openai-poll-after-ms": str(pause)}
    return run.body(now)


async def list_runs(provider: Provider, request: Request, _: JsonObject) -> JsonObject:
    """GET /threads/{id}/runs: newest first unless order=asc."""
    runs = threads_of(request).thread(request.path_params["id"]).runs.values()
    return page(request, [run.body(provider.clock()) for run in runs], "run")


async def update_run(provider: Provider, request: Request, body: JsonObject) -> JsonObject:
    """POST /threads/{id}/runs/{run_id}: its metadata."""
    run = _found(request)
    rules.check(body, rules.METADATA)
    run.metadata = body.get("metadata") or {}
    return run.body(provider.clock())


async def cancel_run(provider: Provider, request: Request, _: JsonObject) -> JsonObject:
    """POST /threads/{id}/runs/{run_id}/cancel."""
    path = request.path_params
    return threads_of(request).cancel_run(path["id"], path["run_id"]).body(provider.clock())


async def list_steps(provider: Provider, request: Request, _: JsonObject) -> JsonObject:
    """GET /threads/{id}/runs/{run_id}/steps: newest first unless order=asc."""
    content = _CONTENT in request.query_params.getlist("include[]")
    return page(request, steps(_found(request), provider.clock(), content=content), "run step")


async def get_step(provider: Provider, request: Request, _: JsonObject) -> JsonObject:
    """GET /threads/{id}/runs/{run_id}/steps/{step_id}."""
    ident = request.path_params["step_id"]
    found = next((one for one in steps(_found(request), provider.clock()) if one["id"] == ident), None)
    if found is None:
        raise rules.not_found("run step", ident)
    return found
