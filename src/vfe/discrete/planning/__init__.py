"""Plans: what is expected of the future under each course of action."""
