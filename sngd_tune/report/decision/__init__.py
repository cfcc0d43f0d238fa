"""A comparison as one page for whoever decides: a verdict by a printed rule, what it saves, and what is not known."""
