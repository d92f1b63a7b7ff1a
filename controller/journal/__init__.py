"""What is true, in PostgreSQL: everything SQL of the farm is in this package.

    journal.py   Journal: the engine's writer. One thread, one connection, one transaction a turn
    commit.py    what a turn's Changes become: a handful of statements over arrays
    rows.py      the tables of records: upserts, deletions and reads, made of the model
    load.py      what is stored in one snapshot; controller/core/restore.py makes the live farm of it
    reader.py    Reader: queries of the gateway and the link, on a small pool
    store.py     Store: content that is not the engine's (bundles, invitations, secrets)
    days.py      day partitions of finished tasks, and retention
    schema.py    the tables; migrations/ brings a database to them

It decides nothing: what a row means is the core's business. Nothing is imported here: the reader and the store bring
SQLAlchemy, for which a start must not wait.
"""
