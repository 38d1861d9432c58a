"""One run's life in its worker's hands.

runner        its course, top to bottom
chain         its steps at the provider, each created once
flight        one step that is under way
conversation  what the steps go on
calls         its tool calls
pace          how it waits: rests, pauses, patience; what the engine has to tell it
looks         when to look at a step;  lifetable: how long they take
outage        when the provider is away
"""
