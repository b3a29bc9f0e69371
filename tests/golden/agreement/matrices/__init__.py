"""Optimizers of matrices: muon, soap, shampoo and their kin."""
