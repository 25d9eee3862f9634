"""Images of virtual machines, built from Debian packages alone: see `deploy.image.guest.build`."""

from deploy.image.guest.build import GuestImage, build, newest

__all__ = ["GuestImage", "build", "newest"]
