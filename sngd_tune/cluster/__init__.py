"""Ray: where a study runs."""
