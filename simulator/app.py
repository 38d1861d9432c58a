"""The ASGI application: the routes of every protocol, and what stands behind them."""

from starlette.applications import Starlette

from simulator import chat_api, control, responses_api, runs_api, threads_api
from simulator.faults import Faults, FaultSettings
from simulator.gate import unknown
from simulator.provider import Provider
from simulator.threads import Threads


def create_app(options: FaultSettings | None = None) -> Starlette:
    """Return a simulator of its own, with nothing in it."""
    provider = Provider(Faults(options or FaultSettings()))
    protocols = (responses_api, chat_api, threads_api, runs_api, control)
    routes = [route for protocol in protocols for route in protocol.routes()]
    app = Starlette(routes=routes, exception_handlers={404: unknown, 405: unknown})
    app.state.provider = provider
    app.state.threads = Threads(provider)
    return app
