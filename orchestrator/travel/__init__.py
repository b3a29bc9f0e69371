"""The user's files that go to a cluster with a sweep: code, and the data files next to it."""
