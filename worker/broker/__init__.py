"""Celery and Redis: never the truth, what they lose is found in the database.

wire       names on the wire
envelope   how a ring lies on Redis
doorbell   "there is something to claim"
consumer   Celery's, which a lost broker does not end
control    inspect, revoke
outlet     the thread of what goes out over Redis
notice     wakes who waits for an end
delivery   sends the outbox: AsyncResult, hooks
"""
