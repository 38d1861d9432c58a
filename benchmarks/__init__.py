"""What a run costs: a real worker on the simulator, beside a script that makes the same requests and keeps nothing.

__main__       `make bench`: both in one run on one machine, so that their ratio means something
bare           the script: asyncio and the stock openai client, no database, no recovery
fleet_limits   four workers under one limit of the provider: how much of it they use, how often they are refused
"""
