"""What trains when and at which rate: pure functions of the plan and the place in the run."""
