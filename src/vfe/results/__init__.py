"""Storing, loading, plotting and reporting what was perceived and learned."""

from vfe.results.run_folder import load, read_config, save_run

__all__ = ["load", "read_config", "save_run"]
