"""Statistics of paired confirm seeds, and what is drawn and said of them."""
