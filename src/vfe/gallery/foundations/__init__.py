"""What free energy is: its readings, its limits, its priors, and the beliefs that may stand in it."""
