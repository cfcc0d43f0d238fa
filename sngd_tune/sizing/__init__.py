"""What the largest trial of a study needs, so that trials share GPUs and nodes and each fits: ``"auto"`` in numbers.

Which of a study's trials is the largest, the cost model of auto-selection says (`core.memory`): the bytes of the local
Fisher layers, of their roots and refreshes, are predicted from shapes, for trials drawn from the space, each with the
largest batch and rank that the space has (`largest`). What that trial takes is then measured rather than summed up,
since activations, libraries and the allocator have no formula (`footprint`): it is trained for four steps and
evaluated, as a task of its own where trials will run, on a whole GPU where the cluster has one. So a trial that is too
large shows here, and brings down neither the driver nor a neighbour. On a GPU this has not been measured.
"""
