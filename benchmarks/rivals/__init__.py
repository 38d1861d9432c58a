"""What the worker is measured against: the same runs on the same provider, with nothing kept.

track      what each script shares: ready, go, the ends of its runs
stock      asyncio with the stock AsyncOpenAI
lean       asyncio with AsyncOpenAI's raw requests: no models of the SDK, its default transport
client     asyncio with the worker's own client, and nothing else of the worker
plain      asyncio with aiohttp: the same requests as the worker, and the floor of what they cost
tutorial   the loop that tutorials show in a Celery task: retrieve, sleep half a second
"""
