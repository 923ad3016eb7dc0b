"""The OpenAPI description, and a page of it for people that asks no other host for anything."""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse, JSONResponse

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8888; padding: 1rem 0; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow: auto; padding: .75rem; border: 1px solid #8888; border-radius: .4rem; }
td, th { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0; }
"""
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


def docs_routes(app: FastAPI) -> APIRouter:
    """Return the routes; the description is made from ``app`` when it is asked for."""
    router = APIRouter(include_in_schema=False)

    @router.get("/openapi.json")
    async def openapi() -> JSONResponse:
        return JSONResponse(app.openapi(), headers={"cache-control": "no-store"})

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(app.openapi()), headers=_HEADERS)

    return router


def page(description: dict[str, Any]) -> str:
    """Return the page of an OpenAPI description: no script, no font, no picture from anywhere."""
    sections = [
        _section(method.upper(), path, operation)
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
        if method in {"get", "post"}
    ]
    info = description["info"]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style><h1>{escape(info['title'])}</h1>"
        f"<p>{escape(info.get('description', ''))} Machines read <a href=/openapi.json>/openapi.json</a>.</p>"
        + "".join(sections)
    )


def _section(method: str, path: str, operation: dict[str, Any]) -> str:
    fields = [
        (parameter["name"], f"in the {parameter['in']}", str(parameter.get("description", "")))
        for parameter in operation.get("parameters", [])
    ]
    bodies = operation.get("requestBody", {}).get("content", {})
    (sort, form), *_ = [*((sort, body["schema"]) for sort, body in bodies.items()), ("", {})]
    sort = "JSON" if sort.endswith("json") else "form"
    required = set(form.get("required", []))
    fields += [
        (name, f"{sort}, required" if name in required else sort, str(schema.get("description", "")))
        for name, schema in form.get("properties", {}).items()
    ]
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code><td>{escape(place)}<td>{escape(meaning)}"
        for name, place, meaning in fields
    )
    return (
        f"<section><h2><code>{escape(method)} {escape(path)}</code></h2><p>{escape(operation.get('description', ''))}</p>"
        f"<table>{rows}</table></section>"
    )
