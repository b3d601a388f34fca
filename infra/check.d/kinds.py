"""Prints a program that the TypeScript compiler accepts when the objects of these manifests that are not Kubernetes' own
have the types of their kinds: no unknown field, none missing."""

import json
import pathlib
import sys

import yaml

MODULES = {
    "ScaledObject": "@kubernetes-models/keda/keda.sh/v1alpha1",
    "TriggerAuthentication": "@kubernetes-models/keda/keda.sh/v1alpha1",
    "ServiceMonitor": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
}

for kind, module in MODULES.items():
    print(f'import type {{ I{kind} }} from "{module}/{kind}";')
found = set()
for path in sys.argv[1:]:
    for one in yaml.safe_load_all(pathlib.Path(path).read_text()):
        if one and one["kind"] in MODULES:
            found.add(one["kind"])
            name = f"{one['kind']}_{pathlib.Path(path).stem.replace('-', '_')}"
            print(f"export const {name}: I{one['kind']} = {json.dumps(one)};")
assert found == MODULES.keys(), f"no {MODULES.keys() - found} in any manifest"
