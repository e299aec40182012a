"""Typed keys under which the application, and a request, hold what handlers need."""

from __future__ import annotations

from aiohttp import web

from ..ingress import Ingress
from ..models import Identity
from ..services.images import ImageService
from ..services.jobs import JobService
from ..services.secrets import SecretService
from ..services.storage import StorageService
from .oauth import Logins
from .viewers import Viewers

IDENTITY = web.AppKey("IDENTITY", Identity)
BASE_URL = web.AppKey("BASE_URL", str)
STORAGE = web.AppKey("STORAGE", StorageService)
SECRETS = web.AppKey("SECRETS", SecretService)
JOBS = web.AppKey("JOBS", JobService)
IMAGES = web.AppKey("IMAGES", ImageService)
INGRESS = web.AppKey("INGRESS", Ingress)
VIEWERS = web.AppKey("VIEWERS", Viewers)
LOGINS = web.AppKey("LOGINS", Logins)
# Whether a request that needs no token came with the right one.
AUTHORIZED = web.RequestKey("AUTHORIZED", bool)
