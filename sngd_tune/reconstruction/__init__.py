"""The explicit form: a model gets local Fisher layers, any torch optimizer trains it, and `restore` folds it back."""
