"""Pure numbers: tests, intervals, power, ranks. Independent of files and sweeps."""
