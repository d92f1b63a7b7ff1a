"""The replica: one process that runs attempts of one agent.

Standard library and `agentfarm.sdk` only: it runs in the agent's own environment, where nothing else need be installed.
It listens on a socket in its own folder, so that a daemon that was restarted finds it again.
"""
