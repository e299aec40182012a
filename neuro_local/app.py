"""The one place that joins engine, store, services and API."""

from __future__ import annotations

import os
from typing import AsyncIterator

from aiohttp import web

from .api import keys
from .api.execs import EXECS
from .api.middleware import authentication, errors
from .api.oauth import Logins
from .api.routes import all_routes, is_public
from .api.viewers import Viewers
from .config import HOST, Settings
from .engines.base import Engine
from .engines.sandbox import SandboxEngine
from .ingress import Ingress
from .models import Identity
from .services.images import ImageService
from .services.jobs import JobService
from .services.storage import StorageService
from .store import JobStore


def create_engine(settings: Settings) -> Engine:
    return SandboxEngine(settings.state / "engine", cache=settings.cache, environ=os.environ)


def create_app(settings: Settings, *, engine: Engine, port: int, token: str) -> web.Application:
    """Return the server's application; it starts the engine and stops all jobs with itself."""
    identity = Identity()
    app = web.Application(
        middlewares=[errors, authentication(token, is_public)], client_max_size=2**24
    )
    ingress = Ingress()
    storage = StorageService(
        settings.storage, cluster=identity.cluster, org=identity.org, home=identity.user
    )
    images = ImageService(f"{HOST}:{port}", identity, engine)
    jobs = JobService(
        identity=identity,
        store=JobStore(settings.state / "jobs.db"),
        engine=engine,
        storage=storage,
        images=images,
        pages=ingress,
        logs=settings.state / "logs",
        minute=settings.minute,
    )
    app[keys.IDENTITY] = identity
    app[keys.BASE_URL] = f"http://{HOST}:{port}"
    app[keys.STORAGE] = storage
    app[keys.JOBS] = jobs
    app[keys.IMAGES] = images
    app[keys.INGRESS] = ingress
    app[keys.VIEWERS] = Viewers()
    app[keys.LOGINS] = Logins(token)
    app[EXECS] = {}
    app.add_routes(all_routes())

    async def running(app: web.Application) -> AsyncIterator[None]:
        await engine.start()
        await jobs.start()
        yield
        await jobs.close()
        await engine.close()

    app.cleanup_ctx.append(running)
    return app
