"""The OpenAPI document as a page: no script and nothing from elsewhere."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from ninja import NinjaAPI
from ninja.openapi.docs import DocsBase

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title></head>
<body>
<h1>{title}</h1>
<p>{description}</p>
<p>Every request has the header <code>Authorization: Bearer KEY</code>. For programs: <a href="{url}">{url}</a></p>
{operations}
<h2>Schemas</h2>
{schemas}
</body>
</html>
"""


class Plain(DocsBase):
    """Everything that the document says, as text."""

    def render_page(self, request: HttpRequest, api: NinjaAPI, **kwargs: Any) -> HttpResponse:
        document = api.get_openapi_schema(path_params=kwargs)
        operations = [
            (method.upper(), path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]
        page = format_html(
            _PAGE,
            title=document["info"]["title"],
            description=document["info"]["description"],
            url=self.get_openapi_url(api, kwargs),
            operations=format_html_join("\n", "{}", ((_operation(*one),) for one in operations)),
            schemas=format_html_join(
                "\n",
                '<details id="{}"><summary><code>{}</code></summary><pre>{}</pre></details>',
                ((name, name, _json(schema)) for name, schema in document["components"]["schemas"].items()),
            ),
        )
        return HttpResponse(page)


def _operation(method: str, path: str, operation: dict[str, Any]) -> SafeString:
    parameters = format_html_join(
        "",
        "<li><code>{}</code> ({}): <code>{}</code></li>",
        (
            (parameter["name"], parameter["in"], json.dumps(parameter["schema"], ensure_ascii=False))
            for parameter in operation.get("parameters", ())
        ),
    )
    body = operation.get("requestBody", {})
    return format_html(
        "<h2><code>{} {}</code></h2>\n<p>{}</p>\n<ul>{}</ul>\n{}",
        method,
        path,
        operation.get("description", operation.get("summary", "")),
        parameters,
        format_html("<details><summary>Body</summary><pre>{}</pre></details>", _json(body)) if body else "",
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
