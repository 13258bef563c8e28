"""An OpenAI-compatible server over an engine and its judges. Needs the extra `serve`."""

from ringfence.server.app import create_app
from ringfence.server.serving import serve
from ringfence.server.settings import ServerSettings

__all__ = ["ServerSettings", "create_app", "serve"]
