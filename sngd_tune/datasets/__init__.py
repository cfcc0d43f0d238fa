"""The published files of the data sets, converted to the Parquet files that the workloads read."""
