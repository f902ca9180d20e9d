"""What a merge will take, reckoned from shapes alone: bytes, memory, operations and seconds.

`passes.py` says how often each stage goes through a layer, `layers.py` and `methods.py` turn
that into work, `memory.py` into what is held, `stages.py` sums a plan, `devices.py` makes
seconds of it. Only `calibrate.py`, which measures this machine, loads torch.
"""
