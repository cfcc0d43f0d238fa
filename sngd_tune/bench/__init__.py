"""Measurements as ratios, taken interleaved in one process: machines are noisy and shared, ratios survive that."""
