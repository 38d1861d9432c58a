"""unit/ pure logic, integration/ real processes, conformance/ one behaviour on every database, the wire, recordings.

servers.py and postgres.py start the real servers, nursery.py and forking.py fork workers, counting.py counts what a
worker sends to its database, reaper.py ends what a killed pytest leaves behind.
"""
