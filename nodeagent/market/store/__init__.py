"""QuestDB on the node: which program to run, how it is kept running, its tables and its health.

```
runtime ─▶ java + jar ─▶ server ─▶ process ◀─ health (suspended tables, disk, lag)
 (fetch)                    │         ▲
                            └─ migrate┴─ sql (HTTP)          writers and readers get an Endpoint
```

The node daemon imports this package, so nothing here imports numpy, the QuestDB client or a PostgreSQL driver.
Rows are written by `nodeagent.market.writer.writer`, in the feed's own process.
"""
