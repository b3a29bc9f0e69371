"""A trial that runs a user's script: its command line, process, reports and end."""
