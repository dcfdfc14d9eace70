"""What chains and dynamic models share: the verbs of time, and how time is passed through."""
