import os

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line sets it, before torch is imported
