"""What an assistant's configuration means.

configuration  the file of assistants, checked
lines          where in it what stands
hosted         of tools of the provider's own
windows        how long a step may wait at the provider, for how much less
prices         what tokens cost (prices.yaml)
"""
