-- How each product's data is now, every two seconds; the newest row of a product is what counts.

CREATE TABLE IF NOT EXISTS feed_now (
    ts TIMESTAMP,
    venue SYMBOL CAPACITY 16,
    product SYMBOL CAPACITY 1024,
    source SYMBOL CAPACITY 16,
    state SYMBOL CAPACITY 16,  -- starting, good, doubtful, failed, gone
    reason VARCHAR,  -- for people; empty while good
    missing_trades LONG,
    last_trade_id LONG,
    lag_ms DOUBLE
) TIMESTAMP(ts) PARTITION BY HOUR TTL 24 HOURS WAL DEDUP UPSERT KEYS(ts, source, product);
