"""`farmctl dev`: a whole farm on this machine, as real processes.

```
command ─▶ start ─▶ processes ─▶ controller, exchange, node daemons        (folder, records: what is ours on disk)
   │         └─▶ market: live, simulated or a capture
   └─▶ run ─▶ screen (a person watches)   or   once ─▶ checks ─▶ report (a program asks)
```

It starts the other programs and speaks HTTP to the gateway; it imports nothing of controller or nodeagent.
"""
