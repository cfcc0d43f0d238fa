"""The colours of what is compared, the same in figures and in MLflow: Okabe and Ito's, which stay apart for every kind
of colour vision.
"""

__all__ = ["BEST", "CATEGORIES"]

BEST = "#D55E00"
CATEGORIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
