"""Where trials run: in this process (`debug`) or on Ray (`ray`)."""

from orchestrator.executors import ray_environment

ray_environment.apply()
