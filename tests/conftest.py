"""For every test: property tests are judged by what they find, never by how fast this machine was meanwhile."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("farm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("farm")
