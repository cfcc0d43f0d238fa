"""The report of a comparison: from what its trainings measured to values, words, tables, figures and a page."""
