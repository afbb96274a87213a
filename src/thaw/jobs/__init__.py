"""Runs as jobs: their folders, what became of them, sweeps.

job.py              what one job does; its failure does not end the sweep
own_process.py      a job under ddp
job_folder.py       names of folders, taken once
folders.py          what Hydra calls around runs and sweeps
status.py           what became of a run
sweep.py            what became of a sweep, and how to go on
"""
