"""The parts of ``torture.py``: commands under faults, the logs and their truth, what must hold afterwards."""
