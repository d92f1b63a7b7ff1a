"""Other task queues on the same work: Procrastinate on PostgreSQL, Celery on Redis.

`queues.py` is our side: it makes an environment for each (pinned, in `.tools/peers/`), starts servers and workers, and
speaks to `app_NAME.py`, which runs inside that environment and cannot import anything of ours.
"""
