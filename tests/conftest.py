"""For all tests."""

from hypothesis import HealthCheck, settings

# How fast a machine makes examples says nothing of the code, and two cores are often shared.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
