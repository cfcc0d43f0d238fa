"""What a scaling study found: curves on two logarithmic scales, exponents with their intervals, a page."""
