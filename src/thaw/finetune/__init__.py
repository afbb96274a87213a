"""What trains when and at which rate: pure functions of the plan and the place in the run.

builder.py          settings -> phases, for every mode
phases.py           one phase and its settings; which dials each mode has
plan.py             the phases of a run, and what holds at a place in it
schedule.py         the rate over a phase
derive.py           the rate that lr: auto stands for
layers.py           rates and names of layer groups
optim.py            layer groups -> optimiser groups
plan_table.py       the plan as it is printed
"""
