"""unit/ pure logic, integration/ real processes, conformance/ one behaviour on every database, the wire, recordings.

servers.py and postgres.py start the real servers, reaper.py ends what a killed pytest leaves behind.
"""
