"""A Celery task's message as it lies on Redis, written without Celery, which a producer would only import to ring.

The message is of Celery's protocol 2 (`as_task_v2` in celery/app/amqp.py), its envelope that of kombu's virtual
transports (kombu/transport/virtual/base.py). A test holds it to what Celery sends, key by key.
"""

import base64
import json
import os
import socket
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

_NO_FOLLOWERS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def message(task: str, args: Sequence[Any], queue: str, *, expires: int) -> str:
    """Return what a left push onto the list `queue` sends: the task, no result wanted, dropped after `expires` s."""
    task_id = str(uuid.uuid4())
    body = json.dumps([args, {}, _NO_FOLLOWERS]).encode()
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": _headers(task_id, task, args, datetime.now(UTC) + timedelta(seconds=expires)),
            "properties": {
                "correlation_id": task_id,
                "reply_to": "",
                "delivery_mode": 2,
                "expiration": str(expires * 1000),
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )


def _headers(task_id: str, task: str, args: Sequence[Any], expires: datetime) -> dict[str, Any]:
    return {
        "lang": "py",
        "task": task,
        "id": task_id,
        "shadow": None,
        "eta": None,
        "expires": expires.isoformat(),
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": task_id,
        "parent_id": None,
        "argsrepr": repr(tuple(args)),
        "kwargsrepr": "{}",
        "origin": f"gen{os.getpid()}@{socket.gethostname()}",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
