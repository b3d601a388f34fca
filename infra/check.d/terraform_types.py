"""Prints a program that the TypeScript compiler accepts when each resource and data source of a Terraform module has the
arguments of its provider: none unknown, none missing, literals of the right type. Expressions count as any type. The types
are those of the prebuilt providers of CDK for Terraform, which are made from the providers' own schemas."""

import json
import pathlib
import re
import sys

import hcl2

module, types = map(pathlib.Path, sys.argv[1:])
# Of Terraform, not of a provider.
META = {"lifecycle", "depends_on", "for_each", "count", "provider"}


class Interfaces(dict):
    """The interfaces of a file: name -> {property -> type}."""

    def __init__(self, path):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
        bodies = re.findall(r"export interface (\w+)[^{]*\{(.*?)^\}", text, re.M | re.S)
        self.update({name: dict(re.findall(r"readonly (\w+)\??: (.+);", body)) for name, body in bodies})
        self.root = re.search(r"export interface (\w+) extends cdktf\.TerraformMetaArguments", text)[1]


def camel(name):
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def literal(value):
    if isinstance(value, str):
        return "expression" if "${" in value else value if value.startswith('"') else json.dumps(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    return json.dumps(value)


def block(value, interface, interfaces):
    parts = []
    for name, inner in value.items():
        if name.startswith("__") or name in META:
            continue
        property_ = camel(name)
        type_ = interfaces.get(interface, {}).get(property_, "")
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            of = re.match(r"\w+", type_)
            inners = [block(one, of and of[0], interfaces) for one in inner]
            is_many = "[]" in type_
            assert is_many or len(inners) == 1, f"{interface}.{property_} is there {len(inners)} times"
            parts.append(f"{property_}: " + (f"[{', '.join(inners)}]" if is_many else inners[0]))
        else:
            parts.append(f"{property_}: {literal(inner)}")
    return "{ " + ", ".join(parts) + " }"


print("declare const expression: any;")
for path in sorted(module.glob("*.tf")):
    file = hcl2.loads(path.read_text())
    for kind in ["resource", "data"]:
        for one in file.get(kind, []):
            for type_, named in one.items():
                provider, rest = type_.strip('"').split("_", 1)
                folder = rest.replace("_", "-") if kind == "resource" else f"data-{provider}-{rest}".replace("_", "-")
                home = f"@cdktf/provider-{provider}/lib/{folder}"
                interfaces = Interfaces(types / "node_modules" / home / "index.d.ts")
                for name, body in named.items():
                    number = f"{kind}_{type_}_{name}".replace('"', "")
                    text = block(body, interfaces.root, interfaces)
                    print(f'const {number}: import("{home}").{interfaces.root} = {text};')
