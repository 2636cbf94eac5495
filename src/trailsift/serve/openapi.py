"""The description of the API (OpenAPI 3.1), made from the endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trailsift import __version__
from trailsift.serve.answers import FORMATS
from trailsift.serve.endpoints import Endpoint
from trailsift.serve.params import LANG, Param

_PROBLEM = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "title", "message", "to_do"],
            "properties": {name: {"type": "string"} for name in ("code", "title", "message", "to_do")},
        }
    },
}


def describe(endpoints: Sequence[Endpoint], live: Param) -> dict[str, Any]:
    """Return the description. ``live``: the parameter of the stream."""
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        formats = tuple(FORMATS) if endpoint.is_table else ("json",)
        content: dict[str, Any] = {
            FORMATS[name]: {"schema": {"type": "string", "format": "binary"}} for name in formats
        }
        content["application/json"] = {"schema": {"type": "object"}}
        paths[f"/api/v1/{endpoint.path}"] = {
            endpoint.method.lower(): {
                "operationId": endpoint.path.replace("/", "_"),
                "summary": endpoint.says,
                "parameters": [param.described() for param in endpoint.all_params],
                "responses": {"200": {"description": "The answer.", "content": content}, **_refusals()},
                "security": [{}, {"bearer": []}, {"cookie": []}],
            }
        }
    paths["/api/v1/live"] = {
        "get": {
            "operationId": "live",
            "summary": "What commits bring, as server-sent events: `commit` and `trouble`.",
            "parameters": [live.described(), LANG.described()],
            "responses": {
                "200": {"description": "A stream.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
                **_refusals(),
            },
            "security": [{}, {"bearer": []}, {"cookie": []}],
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "trailsift",
            "version": __version__,
            "summary": "Questions to a lake of AWS CloudTrail data events.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "trailsift_session"},
            },
        },
    }


def _refusals() -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    says = {
        "400": "The request is wrong.",
        "401": "The token is missing.",
        "403": "A change that did not come from the page.",
        "404": "There is no such thing.",
        "405": "Another method is needed.",
        "500": "A defect, or the engine failed.",
        "502": "S3 or Glue failed.",
        "503": "The lake cannot be read now, or the answer is too large.",
        "504": "The answer takes too long.",
    }
    return {status: {"description": text, "content": content} for status, text in says.items()}
