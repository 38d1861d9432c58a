"""What can be seen of a worker.

events     the one seam: what happens, told to all who listen
telemetry  logs
metrics    counts for Prometheus
flower     rows in Flower
vitals     whether this worker is well
probe      its HTTP port
"""
