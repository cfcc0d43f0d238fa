"""Every method a study can name: from a trial's configuration to a model and the optimizer that trains it.

A family of methods has a file; `registry` is the table of all of them.
"""

from sngd_tune.methods.registry import METHODS, build, local_fishers, output_observer, time_parts

__all__ = ["METHODS", "build", "local_fishers", "output_observer", "time_parts"]
