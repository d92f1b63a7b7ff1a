-- What was left out for want of room on the disk: rows per minute and table (`what`). Trades never appear here.

CREATE TABLE IF NOT EXISTS feed_drop (
    ts TIMESTAMP,
    source SYMBOL CAPACITY 16,
    what SYMBOL CAPACITY 16,
    rows LONG
) TIMESTAMP(ts) PARTITION BY MONTH TTL 12 MONTHS WAL DEDUP UPSERT KEYS(ts, source, what);
