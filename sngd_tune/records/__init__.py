"""Plain validated values that travel between the layers: configuration, metrics, outcomes. No torch, no Ray."""
