"""How long to wait before trying again."""

import random


def backoff(failures: int, low: float, high: float, told: float | None = None) -> float:
    """Return the seconds to wait after so many failures in a row: doubling from low to high, with full jitter's half.

    What the provider told (Retry-After) is never undercut; some jitter on top keeps a fleet from coming back at once.
    """
    ceiling = min(high, low * 2.0 ** min(failures - 1, 60))
    wait = ceiling * random.uniform(0.5, 1.0)
    return wait if told is None else max(wait, told * random.uniform(1.0, 1.1))
