"""A server that tests may use, wherever it comes from."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Server:
    """How to reach it as an administrator. ``ca`` is the authority's certificate, if it needs one."""

    urls: tuple[str, ...]
    user: str
    password: str
    ca: Path | None = None

    def request(self, method: str, path: str, body: object = None, *, url: str = "", timeout_s: float = 60) -> Any:
        """One request with a JSON body, and the JSON that comes back.

        Raises:
            urllib.error.HTTPError: the answer is an error.
        """
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
        request = urllib.request.Request((url or self.urls[0]) + path, data=data, headers=headers, method=method)
        context = ssl.create_default_context(cafile=str(self.ca)) if self.ca else None
        with urllib.request.urlopen(request, timeout=timeout_s, context=context) as answer:
            return json.load(answer)

    def get(self, path: str, *, url: str = "") -> Any:
        """One GET, of something that is answered at once."""
        return self.request("GET", path, url=url, timeout_s=5)
