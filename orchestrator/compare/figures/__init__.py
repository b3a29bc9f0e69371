"""Figures of a sweep's results."""

import logging
import os

if not os.access(os.path.expanduser("~"), os.W_OK):  # matplotlib's font cache; it warns at length
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
