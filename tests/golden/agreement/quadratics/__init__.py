"""Methods with a theory on quadratics: average case and games."""
