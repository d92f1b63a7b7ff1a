"""Market data on the node: frames in, validated rows out. `README.md` beside this draws the flow.

A library of the node's market service. It imports `agentfarm` and itself.
"""
