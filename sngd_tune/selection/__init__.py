"""Auto-selection of the local Fisher layer settings: probe a model, price what it could have, choose per layer."""
