"""Tables and figures of a study. They read the ledger and nothing else."""
