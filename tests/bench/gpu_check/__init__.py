"""Everything that only a GPU can tell, in one run of at most six minutes: `python -m tests.bench.gpu_check`."""
