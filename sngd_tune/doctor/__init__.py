"""`sngd-tune doctor`: are a machine and a cluster ready for a study? Each check says what it found, what would help."""
