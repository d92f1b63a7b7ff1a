"""The decision core: what the farm does next, as plain functions of a state, commands and a moment.

Nothing here reads a clock, draws a random number, opens a socket or logs. Time and chance are arguments, so the same
code runs in the controller and in the simulator.
"""
