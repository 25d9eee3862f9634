"""Images from URLs that users name, for the middlewares that boot them."""

from federation_member.middleware.images.config import ImagesConfig
from federation_member.middleware.images.shelf import Ready
from federation_member.middleware.images.store import Fetching, ImageStore

__all__ = ["Fetching", "ImageStore", "ImagesConfig", "Ready"]
