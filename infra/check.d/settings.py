"""Reads the settings that a node is given by a compose file, a unit or a rendered chart, and lets the program itself judge
them: `cursus config` must accept them, each must be one of its variables, and the time until a node is killed must be what
it needs to end."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

# After the drain timeout a node has this long for its loops and connections.
AFTER_DRAIN_SECONDS = 15
SECRETS = {
    "DATABASE_URL_FILE": "postgres://cursus:secret@database:5432/cursus",
    "S3_ACCESS_KEY_ID_FILE": "AKIA",
    "S3_SECRET_ACCESS_KEY_FILE": "secret",
}


def fail(text):
    sys.exit(f"error: {text}")


def seconds(text):
    return int(re.fullmatch(r"(\d+)s?", str(text))[1])


def check_end():
    """The waits of the program after the drain timeout are within AFTER_DRAIN_SECONDS."""
    text = pathlib.Path("src/app.rs").read_text() + pathlib.Path("src/main.rs").read_text()
    waits = re.findall(r"^const \w+_WITHIN: Duration = Duration::from_secs\((\d+)\);", text, re.M)
    if len(waits) != 3 or sum(map(int, waits)) >= AFTER_DRAIN_SECONDS:
        fail(f"a node ends {waits} s after its drain timeout, not within {AFTER_DRAIN_SECONDS} s")


def config_of(settings):
    """What `cursus config` says of these settings, with files for their secrets: setting -> origin."""
    with tempfile.TemporaryDirectory() as folder:
        env = {name: str(value) for name, value in settings.items()}
        for name, secret in SECRETS.items():
            if name in env:
                path = pathlib.Path(folder, name)
                path.write_text(secret)
                env[name] = str(path)
        ran = subprocess.run([os.environ["CURSUS_BIN"], "config"], env=env, capture_output=True, text=True)
    if ran.returncode:
        fail(f"the program refuses {sorted(env)}: {ran.stderr}")
    if "mode: fleet" not in ran.stdout or "warning" in ran.stdout:
        fail(ran.stdout)
    unknown = [name for name in env if f"environment {name}\n" not in ran.stdout and name != "PATH"]
    if unknown:
        fail(f"no settings of the program: {unknown}")
    return ran.stdout


def check(settings, stop_seconds):
    table = config_of(settings)
    drain = seconds(re.search(r"^drain-timeout +(\S+)", table, re.M)[1].replace("1m", "60s"))
    if stop_seconds < drain + AFTER_DRAIN_SECONDS:
        fail(f"a node is killed after {stop_seconds} s, and needs {drain} + {AFTER_DRAIN_SECONDS} s to end")


def compose(path, schema):
    import jsonschema

    file = yaml.safe_load(pathlib.Path(path).read_text())
    # The packaged schema is older than the name of a project.
    unnamed = {key: value for key, value in file.items() if key != "name"}
    for error in jsonschema.Draft201909Validator(json.loads(pathlib.Path(schema).read_text())).iter_errors(unnamed):
        fail(f"{path}: {error.json_path}: {error.message}")
    nodes = [one for one in file["services"].values() if one["image"] == "cursus"]
    for node in nodes:
        # The image's own settings.
        settings = {"CURSUS_LISTEN": "0.0.0.0:8080", **node["environment"]}
        check(settings, seconds(node["stop_grace_period"]))
        missing = set(node["secrets"]) - set(file["secrets"])
        if missing:
            fail(f"no secrets: {missing}")
    print(f"{path}: {len(file['services'])} services, {len(nodes)} nodes")


def systemd(path):
    text = pathlib.Path(path).read_text()
    settings = dict(re.findall(r"^Environment=(\w+)=(.*)$", text, re.M))
    settings["S3_BUCKET"] = "messages"
    check(settings, seconds(re.search(r"^TimeoutStopSec=(.*)$", text, re.M)[1]))
    credentials = set(re.findall(r"^LoadCredential=(\w+):", text, re.M))
    named = {value.removeprefix("%d/") for name, value in settings.items() if name in SECRETS}
    if credentials != named:
        fail(f"credentials {credentials}, and files {named}")


def helm(path):
    objects = [one for one in yaml.safe_load_all(pathlib.Path(path).read_text()) if one]
    pod = next(one for one in objects if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    node = pod["containers"][0]
    # The other values are the cores of the request.
    settings = {one["name"]: one.get("value", "1") for one in node["env"]}
    if len(settings) != len(node["env"]):
        fail("a setting is there twice")
    pause = node["lifecycle"]["preStop"]["sleep"]["seconds"]
    check(settings, pod["terminationGracePeriodSeconds"] - pause)
    mounts = [mount["mountPath"] for mount in node["volumeMounts"]]
    for name in SECRETS.keys() & settings.keys():
        if os.path.dirname(settings[name]) not in mounts:
            fail(f"{name} is in no volume")


check_end()
kind, *args = sys.argv[1:]
{"compose": compose, "systemd": systemd, "helm": helm}[kind](*args)
