"""Where trials run: in this process (`debug`) or on Ray (`ray`)."""
