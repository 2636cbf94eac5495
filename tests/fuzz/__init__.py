"""Fuzzing of the C modules: hostile log objects and arrays, compared with the Python twins.

`make asan` runs it under AddressSanitizer and UBSan. By hand: `cd tests && python -m fuzz --seconds 60`.
"""
