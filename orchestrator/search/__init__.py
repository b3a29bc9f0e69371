"""Which configuration comes next, and the durable record of what was asked and told."""
