"""Figures of a sweep's results."""

import logging
import os

if not os.access(os.path.expanduser("~"), os.W_OK):  # where matplotlib keeps its list of fonts; it says so at length
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
