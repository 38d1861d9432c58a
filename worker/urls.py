"""URLs as people write them, brought to the one form that SQLAlchemy, Celery and redis-py take.

The messages of the errors never hold the URL: it may carry a password.
"""

import re
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

import redis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

_USER_PASSWORD = re.compile(r"(://[^:/?#@\s]*):\S*@")
_QUERY_SECRET = re.compile(r"([?&][^=&#\s]*(?:password|secret|token|key)[^=&#\s]*=)[^&#\s]*", re.IGNORECASE)

_DATABASE_ACCEPTED = "accepted are sqlite:///PATH and postgresql://USER:PASSWORD@HOST/NAME"
_BROKER_ACCEPTED = "accepted are redis://HOST:PORT/DB, rediss://HOST:PORT/DB and unix:///PATH?db=DB"


def without_secret(text: str) -> str:
    """Return a URL, or a text with URLs, with each password masked."""
    return _QUERY_SECRET.sub(r"\1***", _USER_PASSWORD.sub(r"\1:***@", text))


def database_url(url: str) -> str:
    """Return the SQLAlchemy URL of a SQLite file or a PostgreSQL database (psycopg 3)."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ValueError(_DATABASE_ACCEPTED) from error
    if parsed.drivername in {"postgres", "postgresql", "postgresql+psycopg"}:
        url = parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        return url.replace(" ", "%20")  # SQLAlchemy leaves them, and a mask could not see where a password ends
    if parsed.drivername != "sqlite" or parsed.host:
        raise ValueError(_DATABASE_ACCEPTED)
    if not parsed.database or parsed.database == ":memory:":
        raise ValueError("SQLite needs a file that every process can open: sqlite:///PATH")
    return url


def broker_url(url: str) -> str:
    """Return the URL of a Redis-protocol server as Celery takes it for broker and result backend."""
    parts = _split(url, frozenset({"redis", "rediss", "redis+socket", "unix"}), _BROKER_ACCEPTED)
    query = dict(parse_qsl(parts.query))
    if parts.scheme in {"unix", "redis+socket"}:
        number = query.pop("db", None) or query.pop("virtual_host", None) or "0"
        if not parts.path or not number.isdecimal():
            raise ValueError(_BROKER_ACCEPTED)
        return f"redis+socket://{parts.netloc}{parts.path}?{urlencode({'virtual_host': number, **query})}"
    if not parts.hostname or not re.fullmatch(r"/?\d*", parts.path):
        raise ValueError(_BROKER_ACCEPTED)
    if parts.scheme == "rediss":
        # Celery refuses a rediss:// result backend that does not say this; redis-py takes it as the default.
        query.setdefault("ssl_cert_reqs", "required")
    return parts._replace(query=urlencode(query)).geturl()


def redis_client_url(broker: str) -> str:
    """Return what `redis.Redis.from_url` takes for a URL that `broker_url` has given."""
    parts = urlsplit(broker)
    if parts.scheme != "redis+socket":
        return broker
    query = {"db" if name == "virtual_host" else name: value for name, value in parse_qsl(parts.query)}
    return f"unix://{parts.netloc}{parts.path}?{urlencode(query)}"


def redis_client(broker: str) -> redis.Redis:
    """Return a client that gives up after two seconds: nothing that we tell Redis is worth a longer wait."""
    url = redis_client_url(broker)
    return redis.Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0, retry=Retry(NoBackoff(), 0))


def async_redis_client(broker: str, seconds: float = 0.5) -> AsyncRedis:
    """Return the same for a loop, with some connections; runs wait for it, so it gives up sooner if nothing is said."""
    pool = BlockingConnectionPool.from_url(
        redis_client_url(broker),
        max_connections=8,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        retry=AsyncRetry(NoBackoff(), 0),
    )
    return AsyncRedis.from_pool(pool)


def http_url(url: str) -> str:
    """Return the URL if it is one of HTTP."""
    accepted = "accepted is an http:// or https:// URL such as https://api.openai.com/v1"
    if not _split(url, frozenset({"http", "https"}), accepted).hostname:
        raise ValueError(accepted)
    return url


def _split(url: str, schemes: frozenset[str], accepted: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in schemes and (parts.port is None or parts.port > 0)
    except ValueError as error:  # a port that is no number, a bracket left open
        raise ValueError(accepted) from error
    if not valid:
        raise ValueError(accepted)
    return parts
