"""Image references: which are this platform's own, and what an engine calls them."""

from __future__ import annotations

from typing import Awaitable, Callable, Sequence

from ..engines.base import Engine
from ..errors import InvalidRequest, StartFailed
from ..models import Identity

# Tells whether the platform's registry keeps `PROJECT/NAME:TAG`.
Pushed = Callable[[str], Awaitable[bool]]


async def no_registry(name: str) -> bool:
    """The `Pushed` of a platform without a registry: always False."""
    return False


class ImageService:
    """Knows this platform's registry, `host:port`, as the clients spell it, and what is in it.

    Engines keep own images without the registry's host and without the organisation, so that
    both clients name the same one and a new port after a restart loses none.
    """

    def __init__(
        self, registry: str, identity: Identity, engine: Engine, pushed: Pushed = no_registry
    ) -> None:
        self._registry = registry + "/"
        self._identity = identity
        self._engine = engine
        self._pushed = pushed

    def to_save(self, reference: str) -> str:
        """Return the engine's name for an image to keep. Raises InvalidRequest for other hosts."""
        if not self.is_own(reference):
            raise InvalidRequest(
                f"cannot save to {reference}: only images of this platform can be saved to, "
                "for example image:my-image"
            )
        return self._own_name(reference)

    async def to_run(self, reference: str) -> str:
        """Return the engine's name for an image to run; one of our own must have been saved
        or pushed.

        Raises StartFailed, EngineUnavailable.
        """
        if not self.is_own(reference):
            return reference
        name = self._own_name(reference)
        if name not in await self._engine.images() and not await self._pushed(name):
            raise StartFailed(
                f"image {reference} is not on this platform; nothing was saved under that name",
                reason="ErrImagePull",
            )
        return name

    def is_own(self, reference: str) -> bool:
        """Whether a reference is of this platform's registry."""
        return reference.startswith(self._registry)

    async def saved(self) -> Sequence[str]:
        """Names of the images that the engine keeps, `PROJECT/NAME:TAG`. Raises
        EngineUnavailable."""
        return await self._engine.images()

    async def discard(self, name: str) -> None:
        """Remove what the engine has of `PROJECT/NAME:TAG`. Raises Unsupported,
        EngineUnavailable."""
        await self._engine.discard(name)

    def _own_name(self, reference: str) -> str:
        name = reference[len(self._registry) :]
        return name.removeprefix(f"{self._identity.org}/")
