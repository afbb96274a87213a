"""What trains when and at which rate: pure functions of the plan and the place in the run.

builder.py          settings -> phases, for every mode
phases.py           one phase and its settings; which dials each mode has
plan.py             the phases of a run, what holds at a place in it, and its table
schedule.py         the rate over a phase
layers.py           rates and names of layer groups
optim.py            layer groups -> optimiser groups; the rate that lr: auto stands for
"""
