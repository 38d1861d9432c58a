"""What a run costs: real workers on a fast stand-in for the provider, beside scripts that keep nothing.

__main__      `make bench`, `make bench-full`: which scenarios, how often; writes results.json
scenarios     what is measured, and beside what
measure       one measurement: so many runs through a worker or a rival, and the checks that each run has one result
parking       runs that wait for hours, and that no worker holds
idling        workers that have nothing to do
backlog       the queue without a worker: submit and claim
startup       commands of the shell, from their start to their end
servers       the ground: provider, Redis, databases on one core, what is measured on the other
provider      the stand-in: it costs next to nothing
streaming     a response of the stand-in as events
rivals        the scripts and the tutorial's loop
accounting    CPU and memory of a process tree, from /proc
machine       what was measured on, and how fast it was just then
figures       median, least and most of what was measured; the columns of the tables
plots         the plots of docs/performance.md
report        the tables on the terminal and in docs/performance.md
fleet_limits  a command of its own: four workers under one limit, how much of it they use, how often they are refused
local_demo    a command of its own, `make demo-local`: the batch demo on a small real model
local_model   the server of that model, run by another environment's Python
looks         a command of its own, a simulation: what looks cost and how late they see an end
"""
