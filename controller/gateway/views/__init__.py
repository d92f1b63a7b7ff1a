"""From the farm's state to what callers read. Pure: no I/O, nothing is changed."""
