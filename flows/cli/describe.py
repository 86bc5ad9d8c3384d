"""The keys of params.yaml, in words: what each may be, what it is by default and what it is now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.core.config.params import Params
from tasks.core.config.params_file import AUTO, Asked, Pipeline, may_be_auto

_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


@dataclass(frozen=True)
class Key:
    """One key: `name` is `section.key`; `default` is None where a value must be given; `settled` is what a value that is
    `auto` became at the last run, None where there was none."""

    name: str
    description: str
    type: str
    default: Any
    value: Any
    settled: Any = None


def keys(current: Asked, settled: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[Key]:
    """Every key of every section, with its value in `current`.

    Args:
        settled: what stage recipe wrote, by section and key.
    """
    for section in Pipeline.model_fields:
        values: Params = getattr(current.pipeline, section)
        auto = may_be_auto(section)
        schema = type(values).model_json_schema()
        for name, field in type(values).model_fields.items():
            key = f"{section}.{name}"
            is_auto = key in current.auto
            words = _words(schema["properties"][name], schema.get("$defs", {}))
            yield Key(
                name=key,
                description=field.description or "",
                type=f"{words} or {AUTO}" if name in auto else words,
                default=None if field.is_required() else _plain(field.get_default(call_default_factory=True)),
                value=AUTO if is_auto else _plain(getattr(values, name)),
                settled=(settled or {}).get(section, {}).get(name) if is_auto else None,
            )


def _plain(value: Any) -> Any:
    if isinstance(value, Params):
        return value.model_dump()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _words(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A JSON schema as `integer >= 1`, `one of l1, l2` or `list of number > 0, < 1`."""
    if "$ref" in schema:
        return _words(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return " or ".join(_words(option, definitions) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return "list of " + _words(schema["items"], definitions)
    if schema.get("type") == "object":
        if "properties" in schema:
            return "{" + ", ".join(schema["properties"]) + "}"
        return "mapping to " + _words(schema["additionalProperties"], definitions)
    bounds = [f"{sign} {schema[key]:g}" for key, sign in _BOUNDS.items() if key in schema]
    return " ".join([schema.get("type", "any"), ", ".join(bounds)]).strip()
