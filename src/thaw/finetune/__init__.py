"""What trains when and at which rate: pure functions of the epoch and the plan.

modes.py            freeze_unfreeze, partial, gradual, ...: each writes the phases
phase_list.py       the mode that you write yourself
plan.py             phases: which groups train, from which epoch
plan_table.py       the plan as it is printed
plateau.py          when a phase ends early
schedule.py         the rate over a phase
replay.py           torch's schedulers as tables
optim.py            layer groups -> optimiser groups
"""
