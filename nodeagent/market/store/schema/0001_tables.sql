-- Rows as `nodeagent/market/model/rows.py` names them. `ts` is the venue's time, except where rows.py says receipt time.
-- DEDUP keys make writing a row again harmless: the feed writes at least once, the table keeps it exactly once.
-- Partitions are days, because TTL drops whole partitions.

CREATE TABLE IF NOT EXISTS trades (
    ts TIMESTAMP,
    venue SYMBOL CAPACITY 16,
    product SYMBOL CAPACITY 1024,
    source SYMBOL CAPACITY 16,
    aggressor_side SYMBOL CAPACITY 16,  -- buy or sell: who took liquidity
    trade_id LONG,
    price DECIMAL(38, 12),
    size DECIMAL(38, 12),
    received_at TIMESTAMP
) TIMESTAMP(ts) PARTITION BY DAY TTL 365 DAYS WAL DEDUP UPSERT KEYS(ts, venue, product, trade_id);

CREATE TABLE IF NOT EXISTS ticker (
    ts TIMESTAMP,
    venue SYMBOL CAPACITY 16,
    product SYMBOL CAPACITY 1024,
    source SYMBOL CAPACITY 16,
    price DECIMAL(38, 12),
    best_bid DECIMAL(38, 12),
    best_bid_size DECIMAL(38, 12),
    best_ask DECIMAL(38, 12),
    best_ask_size DECIMAL(38, 12),
    volume_24h DECIMAL(38, 12)
) TIMESTAMP(ts) PARTITION BY DAY TTL 90 DAYS WAL DEDUP UPSERT KEYS(ts, source, product);

CREATE TABLE IF NOT EXISTS book (
    ts TIMESTAMP,
    venue SYMBOL CAPACITY 16,
    product SYMBOL CAPACITY 1024,
    source SYMBOL CAPACITY 16,
    best_bid DECIMAL(38, 12),
    best_ask DECIMAL(38, 12),
    bids DOUBLE[][],  -- bids[1] prices, bids[2] sizes, best first
    asks DOUBLE[][],
    bid_levels LONG,
    ask_levels LONG,
    is_crossed BOOLEAN
) TIMESTAMP(ts) PARTITION BY DAY TTL 30 DAYS WAL DEDUP UPSERT KEYS(ts, source, product);

CREATE TABLE IF NOT EXISTS book_change (
    ts TIMESTAMP,
    venue SYMBOL CAPACITY 16,
    product SYMBOL CAPACITY 1024,
    source SYMBOL CAPACITY 16,
    side SYMBOL CAPACITY 16,
    price DECIMAL(38, 12),
    size DECIMAL(38, 12),  -- absolute; 0 removes the level
    capture_record LONG,
    change_index LONG
) TIMESTAMP(ts) PARTITION BY HOUR TTL 48 HOURS WAL DEDUP UPSERT KEYS(ts, source, product, capture_record, change_index);

CREATE TABLE IF NOT EXISTS feed_health (
    ts TIMESTAMP,  -- the minute
    venue SYMBOL CAPACITY 16,
    product SYMBOL CAPACITY 1024,
    source SYMBOL CAPACITY 16,
    frames LONG,
    trades LONG,
    level_changes LONG,
    duplicates LONG,
    rejected LONG,
    gaps LONG,
    repaired LONG,
    missing_trades LONG,
    crossed LONG,
    resyncs LONG,
    absent_removals LONG,
    unknown_types LONG,
    skew_ms DOUBLE,
    lag_ms DOUBLE,
    is_good BOOLEAN
) TIMESTAMP(ts) PARTITION BY DAY TTL 365 DAYS WAL DEDUP UPSERT KEYS(ts, source, product);

CREATE TABLE IF NOT EXISTS feed_gap (
    ts TIMESTAMP,  -- receipt of the frame that showed the hole
    venue SYMBOL CAPACITY 16,
    product SYMBOL CAPACITY 1024,  -- null: the whole connection
    source SYMBOL CAPACITY 16,
    kind SYMBOL CAPACITY 16,
    first_id LONG,
    last_id LONG,
    repaired_at TIMESTAMP,  -- null: still open
    connection_id LONG
) TIMESTAMP(ts) PARTITION BY DAY TTL 365 DAYS WAL DEDUP UPSERT KEYS(ts, source, product, kind, first_id, last_id);
