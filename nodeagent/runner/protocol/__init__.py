"""What daemon, zygote and replica share: frames on the replica's socket, and the files of its folder.

Standard library only: a replica runs in the agent's own environment. It imports nothing of the farm.
"""
