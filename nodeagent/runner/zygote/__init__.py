"""The zygote: imports once, forks many.

    environment zygote   one per environment: the interpreter, and LangGraph for agents that use it
      └─ agent zygote    one per agent version: the agent imported, the heap frozen
           └─ replica    forked in milliseconds, sharing all of that

Each is a single-threaded program behind a socket in its own folder. It outlives the daemon and is found again.
Standard library and `agentfarm.sdk` only.
"""
