"""What trains when and at which rate: pure functions of the plan and the place in the run.

Read builder.py (settings -> phases), then plan.py (phases), then schedule.py (the rate).
"""
