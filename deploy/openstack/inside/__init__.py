"""Code that runs in OpenStack's own Python environment: it may import OpenStack and the standard library, nothing of ours."""
