"""Ready-made active systems: worlds with bodies, and agents that expect something of them."""
