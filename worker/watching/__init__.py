"""A run followed as it goes on.

live     what runs say meanwhile, over Redis streams
watcher  one run's journal and what it says, told in order
telling  what is told: an event and its position
said     the text of a step, whole although pieces are lost
"""
