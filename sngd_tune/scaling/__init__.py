"""What measured points say about size: power laws, efficiencies, critical batch sizes, noise scales, and plans."""
