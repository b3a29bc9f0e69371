"""A trial that is a script of the user's: its command line, its process, what it says and how it ended."""
