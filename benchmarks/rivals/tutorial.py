"""The loop that tutorials show, in a Celery task: each run holds a slot of the pool until it has ended."""

import json
import os
import time
from typing import Any

import openai
from celery import Celery

from benchmarks.rivals.track import first, second
from tools.arithmetic import calculate

PAUSE = 0.5
app = Celery("tutorial", broker=os.environ["TUTORIAL_BROKER"])
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)
client = openai.OpenAI(base_url=os.environ["TUTORIAL_PROVIDER"], api_key="simulated")


def ended(body: dict[str, Any]) -> Any:
    """Create a response and look at it until it has ended."""
    response = client.responses.create(**body)
    while True:
        response = client.responses.retrieve(response.id)
        if response.status not in {"queued", "in_progress"}:
            return response
        time.sleep(PAUSE)


@app.task(name="tutorial.run")  # type: ignore[untyped-decorator]
def run(name: str) -> None:
    """Carry one run to its end, and write down when that was."""
    conversation = client.conversations.create(metadata={"thread_id": name}).id
    asking = ended({**first(name), "conversation": conversation})
    call = next(item for item in asking.output if item.type == "function_call")
    output = calculate(**json.loads(call.arguments))
    assert ended({**second(name, call.call_id, output), "conversation": conversation}).output_text
    with open(os.environ["TUTORIAL_ENDS"], "a") as ends:  # noqa: PTH123 - one write of one line, from many processes
        ends.write(f"{name} {time.time()}\n")
