"""Parses the sources of a language that cannot be compiled here: parse.py GRAMMAR DIRECTORY."""

import importlib
import pathlib
import sys

import tree_sitter

grammar, directory = sys.argv[1:]
suffix = {"kotlin": ".kt", "c_sharp": ".cs"}[grammar]
language = tree_sitter.Language(importlib.import_module(f"tree_sitter_{grammar}").language())
parser = tree_sitter.Parser(language)
files = sorted(pathlib.Path(directory).rglob("*" + suffix))
bad = [str(file) for file in files if parser.parse(file.read_bytes()).root_node.has_error]
print(len(files), "files;", "with errors:", *bad)
sys.exit(bool(bad) or not files)
