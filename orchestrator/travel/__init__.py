"""What of the user's own goes to a cluster with a sweep: code, and the data files beside it."""
