"""The ledger (Parquet files; the source of truth) and its mirror in MLflow."""
