"""The provider's limits over the whole fleet: each create passes a gate before it goes out.

    gates      what a runner calls: admit a create, tell how it went; one gate for each model
    gate       who waits for a place, the most urgent first, and asks for all of them in turn
    scripts    what Redis does, one script for each operation, on its own clock
    shared     the buckets in Redis, which all workers draw from
    alone      this worker's share of them in memory, for as long as Redis does not answer
    link       the way to Redis, and its absence
    told       what the headers of an answer say
    asking     the words that these use among each other

A bucket is refilled all the time, as the provider's is. It is small, a quarter of a second's worth: what the provider
refuses is what comes in a bunch, and a bunch is also what small delays between here and there make of an even stream.
Bulk leaves a part of it to what is urgent. Only creates are counted: the provider's limits are on what its models do,
and a poll asks no model.
"""
