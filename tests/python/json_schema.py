# SPDX-License-Identifier: Apache-2.0
"""Whether a value satisfies a JSON Schema: the keywords that our tests use, each as its specification says."""

import re

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
ANNOTATIONS = {"$schema", "$defs", "title", "description"}


def has_type(name, value):
    if name in TYPES:
        return isinstance(value, TYPES[name])
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return name == "number" or value == int(value)


def satisfies(value, schema, root=None):
    root = root or schema
    if isinstance(schema, bool):
        return schema
    return all(holds(value, key, schema, root) for key in schema)


def holds(value, key, schema, root):
    wanted = schema[key]
    if key in ANNOTATIONS:
        return True
    if key == "$ref":
        return satisfies(value, root["$defs"][wanted.removeprefix("#/$defs/")], root)
    if key == "type":
        return any(has_type(name, value) for name in ([wanted] if isinstance(wanted, str) else wanted))
    if key == "enum":
        return value in wanted
    if key in ("anyOf", "oneOf"):
        fitting = sum(satisfies(value, one, root) for one in wanted)
        return fitting == 1 if key == "oneOf" else fitting > 0
    if key in ("required", "properties", "additionalProperties"):
        return not isinstance(value, dict) or object_holds(value, key, schema, root)
    if key == "items":
        return not isinstance(value, list) or all(satisfies(item, wanted, root) for item in value)
    if key in ("minItems", "maxItems"):
        return not isinstance(value, list) or (len(value) >= wanted if key == "minItems" else len(value) <= wanted)
    if key in ("pattern", "maxLength"):
        if not isinstance(value, str):
            return True
        return re.search(wanted, value) is not None if key == "pattern" else len(value) <= wanted
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return True
    return {
        "minimum": lambda: value >= wanted,
        "maximum": lambda: value <= wanted,
        "exclusiveMinimum": lambda: value > wanted,
    }[key]()  # a keyword that we do not know is an error of the test


def object_holds(value, key, schema, root):
    if key == "required":
        return all(name in value for name in schema[key])
    if key == "properties":
        return all(satisfies(value[name], one, root) for name, one in schema[key].items() if name in value)
    others = [value[name] for name in value if name not in schema.get("properties", {})]
    return all(satisfies(other, schema[key], root) for other in others)
