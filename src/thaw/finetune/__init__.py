"""What trains when and at which rate: pure functions of the place in the run and the plan.

builder.py          the settings of conf/finetune/ -> a list of phases -> a plan
phase_items.py      the settings of one phase
mode_settings.py    which settings each mode has
plan.py             phases: which groups train, in which epochs; when a phase ends early
plan_table.py       the plan as it is printed
layers.py           names of layer groups, the top of the body, layer-wise rates
schedule.py         the rate over a phase
torch_schedule.py   torch's schedulers as tables
optim.py            layer groups -> optimiser groups
"""
