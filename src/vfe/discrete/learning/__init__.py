"""Learning of tables: Dirichlet counts, online and from whole sequences, and their reduction."""
