#!/usr/bin/env bash
# Pin what setup.cfg asks for, with hashes, for every Python from 3.11 on. Needs uv (`pip install uv`).
# The pins that stand are kept; pass --upgrade, or --upgrade-package NAME, for newer ones.
set -euo pipefail
cd "$(dirname "$0")/.."

export UV_CUSTOM_COMPILE_COMMAND="requirements/lock.sh"

lock() { # OUTPUT EXTRA [OPTIONS]
    uv pip compile setup.cfg requirements/build.in --extra "$2" --output-file "requirements/$1.txt" --quiet \
        --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
        --allow-unsafe --no-annotate "${@:3}"
}

lock dev dev "$@"
lock service service --constraint requirements/dev.txt
