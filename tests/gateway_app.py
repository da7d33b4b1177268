"""A small web gateway, as a team would write one: it does its work, and records who did what.

python tests/gateway_app.py PORT LOGFILE
"""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from auditship.gateway import AuditLog

PAGE = """<!doctype html><title>Console</title><p id="done">waiting</p>
<script>
fetch("/projects/p-3", {method: "PATCH", headers: {"X-User": "ada"}})
  .then(answer => document.getElementById("done").textContent = answer.status)
</script>"""
PEOPLE = {"ada": {"type": "user", "id": "u-1", "name": "Ada Lovelace", "email": "ada@example.com"}}


def application(log: AuditLog) -> Starlette:
    """The gateway."""

    def record(request: Request, action: str, resource: dict[str, str], **more: object) -> None:
        log.write(
            {"organization": {"id": "org-1", "name": "Acme"}, "action": action, "resource": resource},
            ip=request.client.host if request.client else None,
            user_agent=request.headers.get("User-Agent"),
            request_id=request.headers.get("X-Request-Id"),
            **more,
        )

    async def login(request: Request) -> Response:
        given = await request.json()
        person = PEOPLE.get(given.get("user"), {"type": "user", "id": str(given.get("user")) or "nobody"})
        if given.get("password") != "correct horse":
            record(
                request,
                "authentication.login",
                {"type": "organization"},
                actor=person,
                status="failure",
                reason="wrong password",
            )
            return JSONResponse({"error": "wrong password"}, 401)
        record(request, "authentication.login", {"type": "organization"}, actor=person, status="success")
        return JSONResponse({"user": person["id"]})

    async def update(request: Request) -> Response:
        person = PEOPLE[request.headers["X-User"]]
        project = request.path_params["project"]
        changes = [{"field": "name", "from": "old", "to": "new"}]
        record(request, "project.update", {"type": "project", "id": project}, actor=person, status="success", changes=changes)
        return JSONResponse({"id": project})

    async def deploy(request: Request) -> Response:
        token = {"type": "api_token", "id": "tok-9", "name": "deploy"}
        ci = {"platform": "github_actions", "run_id": request.headers["X-Run"]}
        record(request, "application.deploy", {"type": "application", "id": "shop"}, actor=token, status="success", ci=ci)
        return JSONResponse({})

    async def page(request: Request) -> Response:
        del request
        return HTMLResponse(PAGE)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/login", login, methods=["POST"]),
            Route("/projects/{project}", update, methods=["PATCH"]),
            Route("/deploy", deploy, methods=["POST"]),
        ]
    )


if __name__ == "__main__":
    uvicorn.run(application(AuditLog(sys.argv[2])), port=int(sys.argv[1]), log_config=None)
