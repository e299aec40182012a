"""The one place that joins engine, store, services and API."""

from __future__ import annotations

import os
import shutil
from typing import AsyncIterator, Optional

from aiohttp import web

from . import instance
from .api import keys
from .api.execs import EXECS
from .api.middleware import authentication, errors
from .api.oauth import Logins
from .api.registry import UPSTREAM, registry_errors
from .api.routes import all_routes, is_public
from .api.upstream import Upstream
from .api.viewers import Viewers
from .config import AUTO, DOCKER, HOST, Settings
from .engines.base import Engine
from .engines.docker.client import connect
from .engines.docker.engine import DockerEngine
from .engines.docker.leftovers import Traces, clear_all
from .engines.sandbox.engine import SandboxEngine
from .errors import EngineUnavailable
from .ingress import Ingress
from .models import Identity
from .registry import PROGRAM, RegistryServer
from .services.images import ImageService, no_registry
from .services.jobs import JobService
from .services.secrets import SecretService
from .services.storage import StorageService
from .services.tasks import TaskSpecs
from .store import JobStore


async def create_engine(settings: Settings, *, port: int, token: str) -> Engine:
    """Return the engine of the settings, not started: of `auto`, Docker if one answers."""
    if settings.engine == DOCKER or settings.engine == AUTO and await _docker_answers():
        return DockerEngine(
            instance=instance.instance_id(settings),
            traces=Traces(settings.traces_file),
            registry=f"{HOST}:{port}" if shutil.which(PROGRAM) else None,
            password=token,
            environ=os.environ,
        )
    return SandboxEngine(settings.state / "engine", cache=settings.cache, environ=os.environ)


async def clear(settings: Settings) -> None:
    """Let go of what servers that were killed left in their engines; one that does not answer is
    asked again next time. Sandboxes end with their server."""
    traces = Traces(settings.traces_file)
    if traces.sockets:
        await clear_all(traces, instance.instance_id(settings))


async def _docker_answers() -> bool:
    try:
        client = await connect(os.environ)
    except EngineUnavailable:
        return False
    await client.close()
    return True


def create_registry(settings: Settings, engine: Engine) -> Optional[RegistryServer]:
    """Return the registry server for an engine whose images can be pushed and pulled."""
    if engine.name != "docker":
        return None
    log = settings.state / "registry.log"
    return RegistryServer(settings.state / "registry", log=log, environ=os.environ)


def create_app(
    settings: Settings,
    *,
    engine: Engine,
    port: int,
    token: str,
    registry: Optional[RegistryServer] = None,
) -> web.Application:
    """Return the server's application; it starts the engine and the registry, and stops them and
    all jobs with itself."""
    identity = Identity()
    app = web.Application(
        middlewares=[errors, registry_errors, authentication(token, is_public)],
        client_max_size=2**24,
    )
    ingress = Ingress()
    storage = StorageService(
        settings.storage, cluster=identity.cluster, org=identity.org, home=identity.user
    )
    upstream = Upstream(registry) if registry else None
    pushed = upstream.has if upstream else no_registry
    images = ImageService(f"{HOST}:{port}", identity, engine, pushed)
    secrets = SecretService(settings.secrets, identity)
    jobs = JobService(
        identity=identity,
        store=JobStore(settings.state / "jobs.db"),
        engine=engine,
        specs=TaskSpecs(identity, storage, images, secrets),
        images=images,
        pages=ingress,
        logs=settings.state / "logs",
        minute=settings.minute,
    )
    app[keys.IDENTITY] = identity
    app[keys.BASE_URL] = f"http://{HOST}:{port}"
    app[keys.STORAGE] = storage
    app[keys.SECRETS] = secrets
    app[keys.JOBS] = jobs
    app[keys.IMAGES] = images
    app[UPSTREAM] = upstream
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

    if upstream is not None:
        app.cleanup_ctx.append(upstream.running)
    app.cleanup_ctx.append(running)
    return app
