"""Ray adapters around `training`: what Tune runs as a trial."""
