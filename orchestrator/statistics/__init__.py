"""Pure numbers: tests, intervals, power, ranks. Knows no file and no sweep."""
