"""What training uses, in joules, and what that and its time cost. `meter` measures, `cost` only computes.

MLflow's system metrics are no part of this: they are gauges, looked at every ten seconds, which miss most of a short
training and belong to the whole machine. They draw charts; savings are counted from `records.energy.Energy` alone.
"""
