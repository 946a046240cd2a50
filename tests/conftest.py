import os

# Before torch: its threads would spin while another test process has the core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ebft",
    deadline=None,  # shared machines: time says nothing about correctness
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("ebft")
