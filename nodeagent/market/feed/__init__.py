"""The feed process: `python -m nodeagent.market.feed --config FILE.json`.

```
venue ─▶ session ─▶ intake: capture (write-ahead log) ─▶ pipeline ─▶ writer thread ─▶ QuestDB
           ▲            │                                  │             │
           └── questions (REST, resubscribe) ◀─────────────┘             └─▶ acknowledged position (progress.json)
```

Starting it again after any end makes it go on from the last acknowledged position of its capture.
"""
