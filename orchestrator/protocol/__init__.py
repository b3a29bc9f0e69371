"""May this be compared? Fairness rules, seal, controls, forecast."""
