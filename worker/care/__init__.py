"""What keeps an installation well.

maintenance  what the scheduler has done
doctor       proves what must hold
errands      what care asks of the provider;  messenger: who asks it
"""
