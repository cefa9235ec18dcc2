# SPDX-License-Identifier: Apache-2.0
"""Guest images: fetched from the distribution's mirrors, built, and kept in the user's cache."""

from domzero.dom0.images.cache import Image, ImageCache
from domzero.dom0.images.debian import fetch_debian

__all__ = ["Image", "ImageCache", "fetch_debian"]
